"""Select the rows of a dataset whose gradients agree: SAGE (arXiv 2510.02470) for the Hugging Face ecosystem."""

import warnings

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
from .selector.label_issues import LabelIssues, find_label_issues
from .selector.selector import SageSelector
from .selector.several_models import select_over_checkpoints
from .strategies import register_strategy
from .training.arguments import SageArguments, SageTrainingArguments
from .training.trainer import SageMixin, SageTrainer
from .training.warmup import warm_up

__version__ = "0.1.0"

_OLD_NAMES = {
    "find_suspects": "find_label_issues",
    "select_over": "select_over_checkpoints",
    "Suspects": "LabelIssues",
}


def __getattr__(name: str) -> object:
    """Names as they were before 0.1.0, for one version."""
    if name not in _OLD_NAMES:
        raise AttributeError(f"module 'sage_hf' has no attribute {name!r}")
    now = _OLD_NAMES[name]
    warnings.warn(f"sage_hf.{name} is now sage_hf.{now}", DeprecationWarning, stacklevel=2)
    return globals()[now]


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
    "compare",
    "diagnose",
    "find_label_issues",
    "per_example_loss",
    "register_strategy",
    "select_over_checkpoints",
    "warm_up",
]
