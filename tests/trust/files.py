"""What the tests of files share: a small selection, what of it must be equal to the bit, and ways to harm a file."""

import shutil

import numpy as np

from sage_hf import SageConfig, SageSelector

from ..cases import image_rows, vit

SMALL = {"fraction": 0.3, "sketch_size": 4, "batch_size": 8, "shard_size": 8, "check_gradients": False}
HARMS = ("cut", "flipped", "emptied", "a folder", "exchanged")


def select(rows=None, model=None, resume_dir=None, cache_dir=None, **changes):
    selector = SageSelector(
        vit() if model is None else model,
        config=SageConfig(**{**SMALL, "strategy": "agreement", **changes}),
        resume_dir=resume_dir,
        cache_dir=cache_dir,
        progress=False,
    )
    return selector.select(image_rows(44) if rows is None else rows)


def equal(one, other):
    """Whether two selections are the same to the bit."""
    names = ("indices", "kept_scores", "kept_groups")
    names += ("scores", "losses", "status", "groups") if hasattr(one, "losses") else ()
    return all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan="o" in name) for name in names) and (
        one.stats.energy,
        one.stats.error_bound,
    ) == (other.stats.energy, other.stats.error_bound)


def harm(path, how, seed, other=None):
    """Harms a file; `other` is what stands in its place when they are exchanged."""
    random, held = np.random.default_rng(seed), path.read_bytes()
    match how:
        case "cut":
            path.write_bytes(held[: random.integers(1, len(held))])
        case "flipped":
            place = int(random.integers(8 * len(held)))
            path.write_bytes(held[: place // 8] + bytes([held[place // 8] ^ 1 << place % 8]) + held[place // 8 + 1 :])
        case "emptied":
            path.write_bytes(b"")
        case "a folder":
            path.unlink()
            path.mkdir()
        case "exchanged":
            shutil.copyfile(other, path)
