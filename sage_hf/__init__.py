"""Select the rows of a dataset whose gradients agree: SAGE (arXiv 2510.02470) for the Hugging Face ecosystem."""

from .agreement import Consensus, agreement
from .compare import compare
from .comparison import Comparison
from .config import SageConfig
from .diagnosis import Diagnosis, diagnose
from .errors import SageError
from .gradients import GradientCollector, per_example_loss
from .selection import Selection
from .selector import SageSelector
from .sketch import FrequentDirections
from .strategies import register_strategy
from .stream_selection import StreamSelection
from .suspects import Suspects, find_suspects
from .trainer import SageMixin, SageTrainer
from .training_args import SageArguments, SageTrainingArguments
from .trajectory import select_over

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
