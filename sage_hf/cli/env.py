"""The shell's `sage-hf env`: what a bug report needs to know."""

from ..utils.console import PlainConsole


def env() -> None:
    """Show versions and devices, for a bug report; nothing private is in it."""
    from ..utils.environment import describe_environment

    console = PlainConsole()
    for name, value in describe_environment().items():
        console.print(f"{name}: {value}", markup=False, highlight=False)
