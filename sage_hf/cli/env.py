"""The shell's `sage-hf env`: what a bug report needs to know."""

from rich.console import Console

from ..utils.environment import describe_environment


def env() -> None:
    """Show versions and devices, for a bug report; nothing private is in it."""
    console = Console()
    for name, value in describe_environment().items():
        console.print(f"{name}: {value}", markup=False, highlight=False)
