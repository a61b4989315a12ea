"""`SageTrainer`: transformers' Trainer that trains on the rows it selects."""

from .arguments import SageArguments, SageTrainingArguments
from .trainer import SageMixin, SageTrainer

__all__ = ["SageArguments", "SageMixin", "SageTrainer", "SageTrainingArguments"]
