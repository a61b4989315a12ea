import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_blobs

from sage_hf import SageConfig
from sage_hf.config import STRATEGY_LINES
from sage_hf.errors import ConfigError
from sage_hf.strategies import STRATEGIES, Candidates, register_strategy, take_highest
from sage_hf.strategies import partition as parts
from sage_hf.strategies.base import PartOf, highest
from sage_hf.strategies.coverage import COVERAGE_POWER, Centred, GradientDirections, SideBySide
from sage_hf.strategies.jobs import JobRunner
from sage_hf.strategies.partition import Part, by_density, cluster, divided, nearest_to_centres, pick_within_groups
from sage_hf.strategies.quotas import allocate_quotas
from sage_hf.strategies.representation import _farthest, _herd, _locate, _match

# Those that sort rows by one number: a smaller budget's rows lie inside a larger one's.
ORDERS = ("agreement", "random", "loss", "small_loss", "gradient_norm", "el2n")


def candidates(count, groups, seed, levels=1000, width=5):
    """Candidates with gaps in their row numbers and, at few levels, many ties and rows that are alike."""
    rng = np.random.default_rng(seed)

    def column(*shape):
        return (rng.integers(0, levels, shape) / levels).astype(np.float32)

    return Candidates(
        np.sort(rng.choice(3 * count, count, replace=False)).astype(np.int64),
        column(count),
        column(count),
        rng.integers(0, groups, count),
        norms=column(count),
        sketched=column(count, width) - 0.5,
        spectrum=np.array([1.0, 0.5, 0.2, 0.1, 0.0], dtype=np.float32)[:width],
        embeddings=column(count, width),
        el2n=column(count),
    )


def test_every_strategy_has_a_line_in_the_settings_and_a_registered_one_brings_its_own(monkeypatch):
    own = [name for name, each in STRATEGIES.items() if each.choose.__module__.startswith("sage_hf.")]
    assert len(own) == 13 and set(own) <= set(STRATEGY_LINES)
    assert all(len(STRATEGY_LINES[name]) < 100 and STRATEGY_LINES[name].endswith(".") for name in own)
    monkeypatch.setitem(STRATEGIES, "short", None)
    monkeypatch.setitem(STRATEGY_LINES, "short", None)
    del STRATEGY_LINES["short"]

    @register_strategy("short")
    def short(candidates, quotas, seed):
        """The shortest rows.

        By nothing at all.
        """

    assert STRATEGY_LINES["short"] == "The shortest rows."
    assert SageConfig(strategy="short").strategy == "short"


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("levels", [1000, 2, 1])
@settings(max_examples=15)
@given(count=st.integers(1, 60), groups=st.integers(1, 4), share=st.floats(0, 1), seed=st.integers(0, 999))
def test_every_strategy_fills_the_quotas_with_distinct_sorted_candidates(name, levels, count, groups, share, seed):
    pool = candidates(count, groups, seed, levels)
    sizes = np.bincount(pool.groups, minlength=groups)
    quotas = allocate_quotas(sizes, int(share * count), "proportional")
    rows = STRATEGIES[name](pool, quotas, seed)
    assert (np.diff(rows) > 0).all()
    assert np.isin(rows, pool.rows).all()
    taken = pool.groups[np.isin(pool.rows, rows)]
    assert np.bincount(taken, minlength=groups).tolist() == quotas.tolist()
    assert np.array_equal(rows, STRATEGIES[name](pool, quotas, seed))


@settings(max_examples=100)
@given(
    merit=st.lists(st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0, np.nan]), max_size=40),
    groups=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_the_highest_are_those_of_a_stable_sort(merit, groups, seed):
    rng, merit = np.random.default_rng(seed), np.array(merit, dtype=np.float32)
    codes = rng.integers(0, groups, len(merit)).astype(np.uint8)
    quotas = rng.integers(0, 12, groups)
    # Group first, then merit downwards, then place.
    order = np.lexsort((-merit, codes))
    wanted = np.concatenate([order[codes[order] == group][:quota] for group, quota in enumerate(quotas)])
    assert np.flatnonzero(highest(codes, merit, quotas)).tolist() == sorted(wanted.tolist())


def test_a_part_of_a_part_looks_up_the_whole_once():
    whole = np.arange(20, dtype=np.float32).reshape(10, 2)
    part = PartOf(PartOf(whole, np.array([1, 3, 5, 7])), np.array([0, 2]))
    assert part.whole is whole
    assert np.array_equal(part[np.array([1])], whole[[5]])


@pytest.mark.parametrize(
    ("name", "column", "sign"),
    [
        ("agreement", "scores", 1),
        ("loss", "losses", 1),
        ("small_loss", "losses", -1),
        ("gradient_norm", "norms", 1),
        ("el2n", "el2n", 1),
    ],
)
@given(count=st.integers(1, 60), seed=st.integers(0, 999))
def test_a_strategy_that_sorts_keeps_the_best_and_gives_ties_to_the_lower_row(name, column, sign, count, seed):
    pool = candidates(count, 1, seed, levels=4)
    quota, merit = count // 2, sign * getattr(pool, column)
    wanted = sorted(range(count), key=lambda i: (-merit[i], pool.rows[i]))[:quota]
    found = STRATEGIES[name](pool, np.array([quota]), 0)
    assert found.tolist() == sorted(pool.rows[wanted].tolist())


@pytest.mark.parametrize("name", ORDERS)
@given(count=st.integers(2, 60), seed=st.integers(0, 999))
def test_a_smaller_budget_lies_inside_a_larger_one(name, count, seed):
    pool = candidates(count, 1, seed, levels=4)
    larger = STRATEGIES[name](pool, np.array([count // 2]), 3)
    smaller = STRATEGIES[name](pool, np.array([count // 4]), 3)
    assert np.isin(smaller, larger).all()


def test_random_depends_on_the_seed():
    pool = candidates(100, 1, 0)
    first, second = (STRATEGIES["random"](pool, np.array([10]), seed) for seed in (0, 1))
    assert first.tolist() != second.tolist()


def blobs(per_cluster=40, clusters=6, seed=0, width=8):
    """Points around centres far apart, and the number of the centre of each."""
    x, code = make_blobs(per_cluster * clusters, width, centers=clusters, cluster_std=0.3, random_state=seed)
    return x.astype(np.float32), code


@pytest.mark.parametrize("name", ["auto", "coverage", "embedding_kmeans"])
def test_coverage_keeps_one_row_of_every_cluster(name):
    x, code = blobs()
    count = len(x)
    flat = np.zeros(count, dtype=np.float32)
    pool = Candidates(
        *(np.arange(count), flat, flat, np.zeros(count, dtype=np.int64)),
        sketched=x,
        spectrum=np.ones(8, dtype=np.float32),
        embeddings=x,
    )
    kept = STRATEGIES[name](pool, np.array([6]), 0)
    assert sorted(code[kept].tolist()) == list(range(6))


def test_the_row_nearest_to_each_centre_is_kept():
    x, code = blobs()
    for row in nearest_to_centres(x, 6, 0):
        mine = np.flatnonzero(code == code[row])
        distance = ((x[mine] - x[mine].mean(0)) ** 2).sum(1)
        assert mine[distance.argmin()] == row


@settings(max_examples=30)
@given(rows=st.integers(1, 80), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_density_is_kept_where_much_is_kept(rows, share, seed):
    x = np.random.default_rng(seed).normal(size=(rows, 3)).astype(np.float32)
    count = max(1, int(share * rows))
    chosen = by_density(x, count, seed)
    assert len(set(chosen.tolist())) == count
    if count <= rows // parts.ROWS_PER_CLUSTER:
        assert np.array_equal(chosen, nearest_to_centres(x, count, seed))


def test_half_of_a_dense_and_a_sparse_cloud_is_half_of_each():
    rng = np.random.default_rng(0)
    x = np.concatenate([0.01 * rng.normal(size=(180, 4)), 5 + rng.normal(size=(60, 4))]).astype(np.float32)
    assert (by_density(x, 120, 0) < 180).sum() == pytest.approx(90, abs=12)
    assert (nearest_to_centres(x, 120, 0) < 180).sum() < 80  # covering space, not rows


def test_singular_values_are_raised_to_the_power_that_is_wanted():
    spectrum = np.array([1.0, 0.5, 0.01, 0.0], dtype=np.float32)
    basis = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    z = basis * spectrum
    found = GradientDirections(z, spectrum, None)[np.arange(7)]
    wanted = basis * np.where(spectrum > 0, spectrum, 1.0) ** COVERAGE_POWER
    wanted[:, 3] = 0.0  # nothing is known of a direction without a singular value
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.allclose(found, wanted, atol=1e-6)
    as_given = GradientDirections(z, spectrum, 0.5)[np.arange(7)]  # z holds the user's power already
    assert np.allclose(as_given, z / np.linalg.norm(z, axis=1, keepdims=True), atol=1e-6)


def test_vectors_side_by_side_and_centred_are_what_arrays_give():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(9, 3)).astype(np.float32), rng.normal(size=(9, 2)).astype(np.float32)
    places = np.array([1, 4, 8])
    assert np.array_equal(SideBySide(one, other)[places], np.concatenate([one, other], 1)[places])
    centred = one - one.mean(0)
    wanted = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    assert np.allclose(Centred(one, block_rows=2)[places], wanted[places], atol=1e-6)


def test_a_large_group_is_divided_into_parts_that_share_its_quota(monkeypatch):
    monkeypatch.setattr(parts, "PART_ROWS", 32)
    x, code = blobs(per_cluster=100)
    members = np.arange(0, len(x), 2)
    found = divided(x, [Part(members.copy(), 150)], 0, JobRunner())
    assert np.array_equal(np.sort(np.concatenate([part.members for part in found])), members)
    assert sum(part.quota for part in found) == 150
    for part in found:
        assert len(part.members) <= 32 and part.quota <= len(part.members)
        assert abs(part.quota - len(part.members) * 150 / len(members)) < 3
    # Parts are of rows that lie near each other.
    assert np.mean([len(np.unique(code[part.members])) for part in found]) < 3


def test_a_large_group_of_equal_rows_is_divided_all_the_same(monkeypatch):
    monkeypatch.setattr(parts, "PART_ROWS", 16)
    x = np.ones((200, 3), dtype=np.float32)
    found = divided(x, [Part(np.arange(200), 60)], 0, JobRunner())
    assert sum(len(part.members) for part in found) == 200
    assert max(len(part.members) for part in found) <= 16


def test_a_group_that_is_kept_whole_is_not_divided(monkeypatch):
    monkeypatch.setattr(parts, "PART_ROWS", 16)
    whole, few = Part(np.arange(100), 100), Part(np.arange(100, 140), 2)
    first, *others = divided(np.eye(140, 3, dtype=np.float32), [whole, few], 0, JobRunner())
    assert first is whole
    assert sum(part.quota for part in others) == 2 and all(part.quota for part in others)


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - set(ORDERS)))
def test_a_divided_group_still_fills_its_quota(name, monkeypatch):
    monkeypatch.setattr(parts, "PART_ROWS", 16)
    pool = candidates(150, 2, 0)
    quotas = allocate_quotas(np.bincount(pool.groups), 41, "proportional")
    rows = STRATEGIES[name](pool, quotas, 0)
    assert len(rows) == 41 and (np.diff(rows) > 0).all()


def test_clusters_are_found_a_block_at_a_time(monkeypatch):
    monkeypatch.setattr(parts, "_BATCH_ROWS", 64)
    x, code = blobs(per_cluster=60)
    found, _ = cluster(x, np.arange(len(x)), 6, seed=0)
    # Mini-batches may join two clusters and split a third; nearly all pairs are together or apart as they should be.
    alike = (found[:, None] == found) == (code[:, None] == code)
    assert alike.mean() > 0.8


def test_a_rule_sees_each_group_and_not_the_others():
    pool = candidates(30, 3, 0)
    seen = []

    def pick(x, count, seed):
        seen.append(x)
        return np.arange(count)

    pick_within_groups(pool, pool.embeddings, np.array([1, 0, 2]), 0, pick)
    assert sorted(len(x) for x in seen) == sorted((pool.groups == group).sum() for group in (0, 2))


def test_k_center_takes_the_row_farthest_from_all_chosen():
    x = np.random.default_rng(0).normal(size=(25, 3)).astype(np.float32)
    chosen = _farthest(x, 8, 0).tolist()
    for number in range(1, 8):
        distance = ((x[:, None] - x[chosen[:number]]) ** 2).sum(2).min(1)
        assert chosen[number] == distance.argmax()


def test_herding_keeps_the_mean_of_the_chosen_nearest_to_the_groups():
    x = np.random.default_rng(0).normal(size=(25, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)  # of equal length: then the inner product decides as the distance
    chosen = _herd(x.astype(np.float32), 8, 0).tolist()
    mean = x.mean(0)
    for number in range(8):
        left = [row for row in range(25) if row not in chosen[:number]]
        total = x[chosen[:number]].sum(0)
        errors = [np.linalg.norm((total + x[row]) / (number + 1) - mean) for row in left]
        assert chosen[number] == left[int(np.argmin(errors))]


def test_grad_match_keeps_the_rows_whose_weighted_sum_is_the_groups_gradient():
    rng = np.random.default_rng(0)
    strong = 10.0 * np.eye(4, 12)
    x = np.concatenate([0.01 * rng.normal(size=(20, 12)), strong]).astype(np.float32)
    assert sorted(_match(x, 4, 0).tolist()) == [20, 21, 22, 23]
    assert len(set(_match(x, 20, 0).tolist())) == 20  # more than the width can tell apart


def test_craig_is_the_greedy_facility_location():
    x = np.random.default_rng(0).normal(size=(25, 3)).astype(np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    similarity = 1.0 + unit @ unit.T
    chosen = _locate(x, 8, 0).tolist()
    for number in range(8):
        served = similarity[chosen[:number]].max(0, initial=0.0)
        gains = np.maximum(similarity - served, 0.0).sum(1)
        gains[chosen[:number]] = -1.0
        assert gains[chosen[number]] == pytest.approx(gains.max(), rel=1e-5)


def test_el2n_of_rows_without_classes_is_refused():
    pool = candidates(5, 1, 0)
    pool.el2n[2] = np.nan
    with pytest.raises(ConfigError, match="no class label"):
        STRATEGIES["el2n"](pool, np.array([2]), 0)


def test_a_strategy_of_ones_own_is_known_by_its_name():
    try:

        @register_strategy("short_gradients", needs=["norms"])
        def short_gradients(candidates, quotas, seed):
            return take_highest(candidates, -candidates.norms, quotas)

        pool = candidates(20, 1, 0)
        rows = STRATEGIES["short_gradients"](pool, np.array([5]), 0)
        assert set(pool.norms[np.isin(pool.rows, rows)]) == set(np.sort(pool.norms)[:5])
        assert STRATEGIES["short_gradients"].needs == {"norms"}
    finally:
        STRATEGIES.pop("short_gradients", None)


def test_a_strategy_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="not a valid name"):
        register_strategy("two words")
    with pytest.raises(ConfigError, match="colour"):
        register_strategy("mine", needs=["colour"])
    assert "mine" not in STRATEGIES
