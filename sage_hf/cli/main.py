"""The shell: every command is in a file of its own.

Exit codes are in the help.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from functools import partial
from typing import Annotated

import typer

from .. import __version__
from ..config import SageConfig
from .apply import apply
from .choose import choose
from .compare import ListsOfWords, compare
from .demo import demo
from .doctor import doctor
from .env import env
from .explore import explore
from .interrupt import run_until_signal
from .label_issues import label_issues
from .options import Shell, with_options
from .push import push
from .report import report
from .select import ListsStrategies, select
from .show import show

# Settings that rows are read with, where no gradient is taken.
_ENCODING = ("batch_size", "num_workers", "text_columns", "max_length", "seed")
# All settings but that of targets, which `select` alone has.
_UNAIMED = {each.name for each in fields(SageConfig)} - {"target_reduction"}
# Of these, not those of a single selection, which a comparison has several of.
_COMPARED = _UNAIMED - {"fraction", "num_examples", "strategy"}

app = typer.Typer(
    name="sage-hf",
    cls=Shell,
    help="Keep the rows of a dataset whose gradients agree: a model and a dataset go in, a smaller dataset comes out.",
    epilog="**Exit codes**: 0 success; 1 an error, whose message says what to do, or an error that the doctor found; "
    "2 an unknown command or option; 130 interrupted, 143 terminated: run the same command again to continue.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command()(with_options(doctor, only=_UNAIMED))
app.command(cls=ListsStrategies)(with_options(select))
app.command()(with_options(choose))
app.command()(with_options(show))
app.command()(with_options(explore))
app.command()(with_options(report))
app.command()(with_options(label_issues, only=_ENCODING))
app.command()(with_options(apply))
app.command()(with_options(push))
app.command()(with_options(demo))
app.command(cls=ListsOfWords)(with_options(compare, only=_COMPARED))
app.command()(env)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sage-hf {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of `sage-hf` and `python -m sage_hf`.

    Shells complete a command by its name: completion is that of `sage-hf`, by whichever way it is asked for.
    """
    is_completion = any(word.startswith(("--install-completion", "--show-completion")) for word in sys.argv[1:])
    run_until_signal(partial(app, prog_name="sage-hf" if is_completion else None))
