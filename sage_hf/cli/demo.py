"""The shell's `sage-hf demo`: the main job on real images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..selection.report import summary
from .options import option


@dataclass(frozen=True)
class DemoOptions:
    """See their help."""

    output: Path = option(Path("out/demo"), "Folder for the picture and the numbers.", flags="--output -o")
    seed: int = option(0, "Of the split, the wrong labels and the random rows.")
    trainings: int = option(3, "Trainings of each arm; their mean is shown.", min=1)


def demo(options: DemoOptions) -> None:
    """Real images, a fifth of the labels wrong: keep 10 %, train, and compare with random rows and all rows.

    Needs no network; takes about a minute on two cores.
    """
    from ..demo import run_demo

    console = Console()
    selection, arms = run_demo(
        options.output, seed=options.seed, trainings=options.trainings, say=lambda line: console.print(line)
    )
    console.print(summary(selection))
    table = Table(title="Test accuracy after the same number of steps", title_justify="left")
    table.add_column("trained on")
    for name in ("rows", "wrong labels", "accuracy"):
        table.add_column(name, justify="right")
    for arm in arms:
        spread = f" ({min(arm.accuracies):.1%} to {max(arm.accuracies):.1%})" if len(arm.accuracies) > 1 else ""
        table.add_row(arm.name, str(arm.rows), str(arm.wrong_labels), f"{arm.mean:.1%}{spread}")
    console.print(table)
    console.print(f"Picture: {options.output / 'demo.png'}", markup=False)
