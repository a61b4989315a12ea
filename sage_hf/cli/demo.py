"""The shell's `sage-hf demo`: the main job on real images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from ..utils.console import PlainConsole
from .options import option


@dataclass(frozen=True)
class DemoOptions:
    """See their help."""

    output: Path = option(Path("out/demo"), "Folder for the picture and the numbers.", flags="--output -o")
    seed: int = option(0, "Seed of the split, the wrong labels and the random rows.")
    trainings: int = option(3, "Trainings of each group of rows; their mean is shown.", min=1)


def demo(options: DemoOptions) -> None:
    """Real images, a fifth of the labels wrong: keep 10 %, train, and compare with random rows and all rows.

    Needs no network; takes about a minute on two cores.
    """
    from ..demo import run_demo
    from ..selection.report import summary

    console = PlainConsole()
    selection, groups = run_demo(options.output, seed=options.seed, trainings=options.trainings, say=console.print)
    console.print(summary(selection))
    table = Table(title="Test accuracy after the same number of steps", title_justify="left")
    table.add_column("trained on")
    for name in ("rows", "wrong labels", "accuracy"):
        table.add_column(name, justify="right")
    for group in groups:
        spread = f" ({min(group.accuracies):.1%} to {max(group.accuracies):.1%})" if len(group.accuracies) > 1 else ""
        table.add_row(group.name, str(group.rows), str(group.wrong_labels), f"{group.mean:.1%}{spread}")
    console.print(table)
    console.print(f"Picture: {options.output / 'demo.png'}", markup=False)
