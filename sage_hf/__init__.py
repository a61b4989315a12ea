"""Select the rows of a dataset whose gradients agree: SAGE (arXiv 2510.02470) for the Hugging Face ecosystem."""

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
from .selector.selector import SageSelector
from .selector.several_models import select_over
from .selector.suspects import Suspects, find_suspects
from .strategies import register_strategy
from .training.arguments import SageArguments, SageTrainingArguments
from .training.trainer import SageMixin, SageTrainer

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "Consensus",
    "Diagnosis",
    "FrequentDirections",
    "GradientCollector",
    "SageArguments",
    "SageConfig",
    "SageError",
    "SageMixin",
    "SageSelector",
    "SageTrainer",
    "SageTrainingArguments",
    "Selection",
    "StreamSelection",
    "Suspects",
    "agreement",
    "compare",
    "diagnose",
    "find_suspects",
    "per_example_loss",
    "register_strategy",
    "select_over",
]
