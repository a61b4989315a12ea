"""What becomes of a row, and the columns that tell of it."""

ROW_COLUMN = "sage_row"
SCORE_COLUMN = "sage_score"
LOSS_COLUMN = "sage_loss"

# Why a row was set aside.
SCORED, NOT_FINITE, ZERO_GRADIENT, NO_TOKENS = 0, 1, 2, 3
REASONS = {
    NOT_FINITE: "gradient or loss not finite",
    ZERO_GRADIENT: "gradient exactly zero",
    NO_TOKENS: "no tokens",
}
STATUSES = 1 + len(REASONS)

# What became of a row, by number: kept or not chosen; or before that doubted, the same as another, too hard for groups
# that keep few, or without a score.
OUTCOMES = ("kept", "not chosen", "doubted", "near-duplicate", "hard", "set aside")
KEPT, NOT_CHOSEN, DOUBTED, NEAR_DUPLICATE, HARD, SET_ASIDE = range(len(OUTCOMES))
