"""Whether scores mean anything: numbers alone, no model but for the loss of guessing."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    T5Config,
    T5ForConditionalGeneration,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
)

from sage_hf.data.meaning import Meaning, MeaningTally, Spread, loss_of_guessing

from ..cases import bert, llama, vit

HEALTHY = Meaning(
    rows=1000,
    groups=10,
    judged=1000,
    accuracy=0.6,
    majority=0.1,
    mean_loss=1.2,
    guessing_loss=2.3,
    loss_deviation=0.8,
    score_deviation=0.3,
)
SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}


def test_a_model_that_knows_its_labels_is_not_warned_of():
    assert HEALTHY.is_above_chance and HEALTHY.differs
    assert HEALTHY.warning == ""


def test_a_model_no_better_than_the_commonest_class_is_told_with_both_numbers_and_the_remedy():
    poor = replace(HEALTHY, accuracy=0.104, majority=0.105, mean_loss=2.31)
    assert poor.is_above_chance is False
    assert "predicts the label of 10.4% of 1,000 rows" in poor.warning
    assert "commonest class would get 10.5%" in poor.warning
    assert "warm_up(model, dataset, steps=200)" in poor.warning and "--warmup-steps 200" in poor.warning


@pytest.mark.parametrize(
    ("rows", "words"), [(200, "no more than chance may give above"), (90_000, "only a little more")]
)
def test_a_model_that_is_a_little_better_than_guessing_is_not_told_to_be_no_better(rows, words):
    poor = replace(HEALTHY, judged=rows, rows=rows, accuracy=0.297, majority=0.258, mean_loss=2.31)
    assert poor.is_above_chance is False
    assert words in poor.warning and "29.7%" in poor.warning and "25.8%" in poor.warning
    assert "or for longer" in poor.warning and "--warmup-learning-rate 0.001" in poor.warning


@pytest.mark.parametrize(
    "change",
    [
        {"mean_loss": 2.1},  # an unsure model whose likeliest class is always the same, and which knows more than that
        {"accuracy": 0.6, "mean_loss": 9.0},  # one that is sure of the wrong labels that a fifth of the rows have
    ],
)
def test_accuracy_or_loss_is_enough_to_know_something(change):
    assert replace(HEALTHY, **{"accuracy": 0.1, **change}).warning == ""


def test_a_language_model_is_held_against_guessing_any_word():
    words = replace(HEALTHY, judged=0, accuracy=None, majority=None, guessing_loss=math.log(32000), loss_deviation=1.0)
    assert replace(words, mean_loss=4.0).warning == ""
    text = replace(words, mean_loss=10.4).warning
    assert "mean loss is 10.400" in text and "would have 10.373" in text


def test_where_nothing_is_known_of_the_model_nothing_is_said():
    unknown = {"judged": 0, "accuracy": None, "majority": None, "mean_loss": None, "guessing_loss": None}
    meaning = replace(HEALTHY, **unknown)
    assert meaning.is_above_chance is None
    assert meaning.warning == ""


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_a_handful_of_rows_shows_nothing(rows):
    few = replace(HEALTHY, rows=rows, judged=rows, accuracy=0.0, mean_loss=9.0, score_deviation=0.0)
    assert few.warning == ""


def test_rows_of_one_class_show_nothing_of_the_model():
    one = replace(HEALTHY, accuracy=1.0, majority=1.0, guessing_loss=0.0, mean_loss=0.1)
    assert one.is_above_chance is None and one.warning == ""


def test_scores_that_are_one_score_are_told():
    text = replace(HEALTHY, score_deviation=0.0004).warning
    assert "the scores of all 1,000 rows are nearly equal (standard deviation 0.0004" in text
    assert "earlier checkpoint" in text and "group_by" not in text
    unknown = {"accuracy": None, "mean_loss": None}
    assert "warm_up" in replace(HEALTHY, **unknown, score_deviation=0.0004).warning


def test_groups_of_single_rows_have_a_remedy_of_their_own():
    text = replace(HEALTHY, score_deviation=0.0, groups=900).warning
    assert "900 groups have 1.1 rows each" in text and "--group-by none" in text and "warm_up" not in text


def test_both_make_one_warning():
    text = replace(HEALTHY, accuracy=0.1, mean_loss=2.31, score_deviation=0.0).warning
    assert "predicts the label" in text and "nearly equal" in text
    assert text.count("The scores mean little") == 1


@given(st.floats(0, 1), st.floats(0.01, 0.99), st.integers(10, 10**6))
def test_a_better_model_is_never_warned_of_where_a_worse_one_is_not(accuracy, majority, judged):
    by_labels = replace(HEALTHY, majority=majority, judged=judged, mean_loss=None, guessing_loss=None)
    worse, better = (replace(by_labels, accuracy=value) for value in (accuracy, (1 + accuracy) / 2))
    assert bool(worse.warning) or not better.warning
    assert replace(by_labels, accuracy=1.0).warning == ""


# -------------------------------------------------------------------- the sums
def rows_of(count, seed):
    rng = np.random.default_rng(seed)
    scores, losses, doubts = (rng.random(count, dtype=np.float32) for _ in range(3))
    labels = rng.integers(-1, 4, count).astype(np.int32)
    scores[rng.random(count) < 0.1] = np.nan
    losses[np.isnan(scores)] = np.nan
    doubts[(labels < 0) | (rng.random(count) < 0.1)] = np.nan
    return scores, losses, labels, doubts


@given(st.integers(1, 200), st.integers(0, 2**32 - 1), st.lists(st.integers(0, 200), max_size=4))
def test_parts_come_to_what_all_rows_come_to(count, seed, cuts):
    columns, model = rows_of(count, seed), vit(4)
    whole, parts = MeaningTally(), MeaningTally()
    whole.add(*columns)
    bounds = sorted({0, count, *(min(cut, count) for cut in cuts)})
    for start, stop in pairwise(bounds):
        parts.add(*(column[start:stop] for column in columns))
    one, other = (vars(tally.finish(4, model, True)) for tally in (whole, parts))
    assert one == pytest.approx(other, abs=1e-9)


def test_the_sums_are_those_of_the_rows_that_have_a_score_and_a_class():
    scores, losses, labels, doubts = rows_of(500, 0)
    tally = MeaningTally()
    tally.add(scores, losses, labels, doubts)
    meaning = tally.finish(4, vit(4), True)
    counted = np.isfinite(scores) & np.isfinite(doubts)
    shares = np.bincount(labels[counted]) / counted.sum()
    assert meaning.rows == np.isfinite(scores).sum() and meaning.judged == counted.sum()
    assert meaning.accuracy == pytest.approx((doubts[counted] <= 0.5).mean())
    assert meaning.majority == pytest.approx(shares.max())
    assert meaning.mean_loss == pytest.approx(losses[counted].mean(), abs=1e-6)
    assert meaning.guessing_loss == pytest.approx(-(shares * np.log(shares)).sum())
    assert meaning.score_deviation == pytest.approx(np.nanstd(scores), abs=1e-6)


def test_without_labels_and_doubts_scores_are_still_looked_at():
    scores, losses, *_ = rows_of(500, 0)
    tally = MeaningTally()
    tally.add(scores, losses, None, None)
    meaning = tally.finish(1, nn.Linear(1, 1), True)
    assert (meaning.judged, meaning.accuracy, meaning.mean_loss) == (0, None, None)
    assert meaning.differs


def test_a_loss_of_the_users_own_is_not_held_against_guessing():
    tally = MeaningTally()
    tally.add(*rows_of(500, 0)[:2], None, None)
    assert tally.finish(1, llama(), False).guessing_loss is None
    assert tally.finish(1, llama(), True).guessing_loss == pytest.approx(math.log(llama().config.vocab_size))


def test_nothing_has_neither_mean_nor_spread():
    empty = Spread()
    empty.add(np.full(3, np.nan))
    assert (empty.count, empty.deviation) == (0, 0.0)
    assert MeaningTally().finish(0, vit(), True).warning == ""


@pytest.mark.parametrize(
    ("make", "guesses"),
    [
        (lambda: vit(7), 7),
        (lambda: BertForSequenceClassification(BertConfig(**SMALL, num_labels=1)), None),
        (lambda: BertForSequenceClassification(BertConfig(**SMALL, problem_type="multi_label_classification")), None),
        (lambda: BertForTokenClassification(BertConfig(**SMALL)), None),
        (lambda: BertForMaskedLM(BertConfig(**SMALL, vocab_size=90)), 90),
        (lambda: T5ForConditionalGeneration(T5Config(d_model=8, d_kv=8, d_ff=8, num_layers=1, vocab_size=80)), 80),
        (
            lambda: Wav2Vec2ForCTC(
                Wav2Vec2Config(
                    **SMALL,
                    conv_dim=(8,),
                    conv_stride=(5,),
                    conv_kernel=(10,),
                    num_feat_extract_layers=1,
                    num_conv_pos_embeddings=2,
                    num_conv_pos_embedding_groups=1,
                )
            ),
            None,
        ),
        (bert, bert().config.num_labels),
        (lambda: nn.Linear(2, 2), None),
    ],
)
def test_guessing_is_among_classes_or_words_and_of_other_losses_nothing_is_known(make, guesses):
    torch.manual_seed(0)
    assert loss_of_guessing(make()) == (None if guesses is None else pytest.approx(math.log(guesses)))
