"""Select the rows of a dataset whose gradients agree: SAGE (arXiv 2510.02470) for the Hugging Face ecosystem.

Names load when they are first used (PEP 562): torch and transformers take seconds, which a shell's help need not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparison.compare import compare
    from .comparison.result import Comparison
    from .config import SageConfig
    from .diagnosis import Diagnosis, diagnose
    from .errors import SageError
    from .gradients import GradientCollector, per_example_loss
    from .scoring.agreement import Consensus, agreement
    from .scoring.sketch import FrequentDirections
    from .selection.selection import Selection
    from .selection.stream_selection import StreamSelection
    from .selector.cleaning import apply_label_issues
    from .selector.label_issues import LabelIssues, find_label_issues
    from .selector.selector import SageSelector
    from .selector.several_models import select_over_checkpoints
    from .strategies import register_strategy
    from .training.arguments import SageArguments, SageTrainingArguments
    from .training.trainer import SageMixin, SageTrainer
    from .training.warmup import warm_up

__version__ = "0.2.0"

# The modules that public names live in.
_HOMES = {
    "comparison.compare": ("compare",),
    "comparison.result": ("Comparison",),
    "config": ("SageConfig",),
    "diagnosis": ("Diagnosis", "diagnose"),
    "errors": ("SageError",),
    "gradients": ("GradientCollector", "per_example_loss"),
    "scoring.agreement": ("Consensus", "agreement"),
    "scoring.sketch": ("FrequentDirections",),
    "selection.selection": ("Selection",),
    "selection.stream_selection": ("StreamSelection",),
    "selector.cleaning": ("apply_label_issues",),
    "selector.label_issues": ("LabelIssues", "find_label_issues"),
    "selector.selector": ("SageSelector",),
    "selector.several_models": ("select_over_checkpoints",),
    "strategies": ("register_strategy",),
    "training.arguments": ("SageArguments", "SageTrainingArguments"),
    "training.trainer": ("SageMixin", "SageTrainer"),
    "training.warmup": ("warm_up",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
# As they were before 0.2.0; `utils.deprecation` has all that changed.
_OLD_NAMES = {
    "find_suspects": "find_label_issues",
    "select_over": "select_over_checkpoints",
    "Suspects": "LabelIssues",
}


def __getattr__(name: str) -> Any:
    """Public names, and as they were before 0.2.0, for one version."""
    now = _OLD_NAMES.get(name, name)
    if now not in _HOME_OF:
        raise AttributeError(f"module 'sage_hf' has no attribute {name!r}")
    if now != name:
        from .utils.deprecation import warn_old

        warn_old(f"sage_hf.{name}", f"sage_hf.{now}")
    value = globals()[now] = getattr(import_module(f".{_HOME_OF[now]}", __name__), now)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "Comparison",
    "Consensus",
    "Diagnosis",
    "FrequentDirections",
    "GradientCollector",
    "LabelIssues",
    "SageArguments",
    "SageConfig",
    "SageError",
    "SageMixin",
    "SageSelector",
    "SageTrainer",
    "SageTrainingArguments",
    "Selection",
    "StreamSelection",
    "agreement",
    "apply_label_issues",
    "compare",
    "diagnose",
    "find_label_issues",
    "per_example_loss",
    "register_strategy",
    "select_over_checkpoints",
    "warm_up",
]
