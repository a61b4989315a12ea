"""The demo: real images of digits, a fifth of the training labels wrong, and what selection makes of them.

Nothing is downloaded: the images come with scikit-learn, the model is a small vision transformer built from a config.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from datasets import Array3D, ClassLabel, Dataset, Features
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from transformers import ViTConfig, ViTForImageClassification, set_seed

from .comparison.experiment import Experiment, complete
from .comparison.metrics import Accuracy
from .config import SageConfig
from .hub.pictures import KEPT_COLOUR
from .selection.selection import Selection
from .selector.selector import SageSelector
from .training.warmup import warm_up
from .utils.files import whole_file

FRACTION = 0.1
WRONG_SHARE = 0.2
WARM_UP_STEPS = 800
TRAINING_STEPS = 300
LEARNING_RATE = 2e-3
BATCH_SIZE = 32


@dataclass(frozen=True)
class Digits:
    """Training rows and test rows, with columns pixel_values [1, 8, 8] and label; which training labels are wrong."""

    train: Dataset
    test: Dataset
    is_wrong: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trained:
    """One way to choose the training rows, and what came of it.

    Attributes:
        name: What was trained on.
        rows: Number of rows.
        wrong_labels: Number of rows that have a wrong label.
        accuracies: Test accuracy in [0, 1] of each training, from different initial weights.
    """

    name: str
    rows: int
    wrong_labels: int
    accuracies: list[float]

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(np.mean(self.accuracies))


def load_noisy_digits(seed: int = 0, wrong_share: float = WRONG_SHARE) -> Digits:
    """scikit-learn's 1,797 digits, 70 % to train on, a share of these with a random other label."""
    digits = load_digits()
    images = (digits.images / 8 - 1).astype(np.float32)[:, None]
    train_x, test_x, train_y, test_y = train_test_split(
        images, digits.target, test_size=0.3, random_state=seed, stratify=digits.target
    )
    rng = np.random.default_rng(seed)
    is_wrong = np.zeros(len(train_y), dtype=bool)
    is_wrong[rng.permutation(len(train_y))[: round(wrong_share * len(train_y))]] = True
    labels = np.where(is_wrong, (train_y + rng.integers(1, 10, len(train_y))) % 10, train_y)
    return Digits(_dataset(train_x, labels), _dataset(test_x, test_y), is_wrong)


def build_vit(seed: int = 0) -> ViTForImageClassification:
    """A vision transformer of 3 layers, 64 wide, over the 16 patches of an 8 x 8 image; 0.1 million weights."""
    set_seed(seed)
    patches = {"image_size": 8, "patch_size": 2, "num_channels": 1}
    layers = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    return ViTForImageClassification(ViTConfig(**patches, **layers, num_labels=10))


def run_demo(
    output: str | Path,
    *,
    seed: int = 0,
    trainings: int = 3,
    warm_up_steps: int = WARM_UP_STEPS,
    training_steps: int = TRAINING_STEPS,
    say: Callable[[str], None] = print,
) -> tuple[Selection, list[Trained]]:
    """Warm-up, selection, and a training on the selected, on as many random and on all rows.

    Args:
        output: Folder for `demo.json` and `demo.png`.
        seed: Seed of the split, the noise, the warm-up and the random rows.
        trainings: Trainings of each group, from different initial weights.
        warm_up_steps: Steps on random rows before the selection.
        training_steps: Steps of every training, so that all groups cost the same.
        say: Takes a line about what happens.

    Returns:
        The selection, and the groups: selected, random, all.
    """
    digits = load_noisy_digits(seed)
    count = len(digits.train)
    wrong = int(digits.is_wrong.sum())
    say(f"{count} images of digits, {wrong} of them with a wrong label; {len(digits.test)} to test.")
    model = build_vit(seed)
    warm_up(model, digits.train, steps=warm_up_steps, learning_rate=LEARNING_RATE, batch_size=BATCH_SIZE)
    say(f"Warm-up: {warm_up_steps} steps on random rows.")
    config = SageConfig(fraction=FRACTION, seed=seed)
    selection = SageSelector(model, config=config).select(digits.train)
    seconds = selection.stats.fit_seconds + selection.stats.score_seconds
    say(f"Selection: {len(selection)} rows in {seconds:.1f} s.")
    # The baseline gets the same quotas: as many rows of every class.
    lots = SageSelector(model, config=SageConfig(fraction=FRACTION, strategy="random", seed=seed)).select(digits.train)
    steps = {"max_steps": training_steps, "learning_rate": LEARNING_RATE, "per_device_train_batch_size": BATCH_SIZE}
    arguments = complete(steps, eval_batch_size=256, on_cpu=True)
    experiment = Experiment(build_vit, digits.train, digits.test, arguments, Accuracy(), SageConfig(seed=seed))
    groups = []
    for name, rows in (("selected", selection.indices), ("random", lots.indices), ("all", np.arange(count))):
        accuracies = [
            experiment.judge(*experiment.run(rows, seed + number))["accuracy"] for number in range(trainings)
        ]
        groups.append(Trained(name, len(rows), int(digits.is_wrong[rows].sum()), accuracies))
        say(f"Trained {trainings} x {training_steps} steps on {len(rows)} rows ({name}).")
    folder = Path(output)
    numbers = {"groups": [asdict(group) for group in groups], "stats": selection.stats.to_dict()}
    with whole_file(folder / "demo.json", "Choose a folder that can be written to.") as part:
        part.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    draw(selection, digits.is_wrong, groups, folder / "demo.png")
    return selection, groups


def draw(selection: Selection, is_wrong: npt.NDArray[np.bool_], groups: list[Trained], path: Path) -> None:
    """Saves the picture: agreement of rows with right and wrong labels, and each group's accuracy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    bins = np.linspace(-1, 1, 41)
    for wanted, label, color, hatch in ((False, "right label", "#bdbdbd", ""), (True, "wrong label", "#252525", "//")):
        shade = {"color": color, "hatch": hatch, "edgecolor": "white", "alpha": 0.8}
        left.hist(selection.scores[is_wrong == wanted], bins, label=label, **shade)
    left.set(xlabel="agreement with the class", ylabel="training rows", title="What agreement sees")
    left.legend()
    names = [f"{group.name}\n{group.rows} rows\n{group.wrong_labels} wrong" for group in groups]
    bars = right.bar(names, [100 * group.mean for group in groups], color=[KEPT_COLOUR, "#d9d9d9", "#969696"])
    for bar, group in zip(bars, groups, strict=True):
        middle = bar.get_x() + bar.get_width() / 2
        right.plot([middle] * len(group.accuracies), [100 * each for each in group.accuracies], "k_")
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    right.bar_label(bars, fmt="%.1f", label_type="center", bbox=box)
    right.set(ylabel="test accuracy, %", ylim=(0, 100), title="What training makes of it (lines: each training)")
    figure.savefig(path, dpi=110)


def _dataset(images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Dataset:
    features = Features({"pixel_values": Array3D((1, 8, 8), "float32"), "label": ClassLabel(num_classes=10)})
    return Dataset.from_dict({"pixel_values": images, "label": labels}, features=features)
