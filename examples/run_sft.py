"""Fine-tunes a causal language model with LoRA, by trl's SFTTrainer, on a subset that follows it.

    python examples/run_sft.py --output_dir out/docstrings
    accelerate launch examples/run_sft.py --output_dir out/alpaca --dataset_name tatsu-lab/alpaca \
        --model_name_or_path Qwen/Qwen3-0.6B --bf16 --sage_fraction 0.1 --sage_warmup_epochs 0.05 --num_train_epochs 1

Without --dataset_name: the standard library's docstrings, their signatures as prompts, and a small Llama that has seen
the language reference for a moment; no network, about a minute on two cores.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from datasets import Dataset, load_dataset
from peft import LoraConfig
from python_text import build_llama, docstring_rows, topic_rows, train_tokenizer
from running import finish, parse
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from sage_hf import SageArguments, SageMixin
from sage_hf.training.warmup import warm_up

OFFLINE = {
    "num_train_epochs": 3,
    "learning_rate": 5e-3,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 32,
    "max_length": 96,
    "logging_strategy": "epoch",
    "save_strategy": "no",
    "report_to": "none",
    "bf16": False,
    "sage_fraction": 0.2,
    "sage_warmup_epochs": 0.5,
    "sage_refresh_epochs": 1,
}


@dataclass
class SageSFTConfig(SageArguments, SFTConfig):
    """trl's SFTConfig with the knobs of a selection."""


class SageSFTTrainer(SageMixin, SFTTrainer):
    """trl's SFTTrainer on a subset that follows the model."""


@dataclass
class DataArguments:
    """Which data and which model."""

    dataset_name: str | None = field(default=None, metadata={"help": "Hub id or folder; docstrings by default."})
    dataset_config: str | None = field(default=None, metadata={"help": "The dataset's configuration."})
    split: str = field(default="train", metadata={"help": "Split to take rows from."})
    test_share: float = field(default=0.05, metadata={"help": "Share of the rows that is held out."})
    rows: int | None = field(default=None, metadata={"help": "Use only so many rows."})
    model_name_or_path: str = field(
        default="Qwen/Qwen3-0.6B", metadata={"help": "Checkpoint; used with --dataset_name."}
    )
    pretraining_steps: int = field(default=100, metadata={"help": "Of the small Llama, without --dataset_name."})
    lora_r: int = field(default=8, metadata={"help": "Rank of the adapters."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "v_proj"], metadata={"help": "Modules that get adapters."}
    )


def load(data: DataArguments, args: SageSFTConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Dataset]:
    """Model, tokenizer and rows as trl takes them: messages, a prompt and a completion, or a text."""
    if data.dataset_name is None:
        topics = topic_rows()
        tokenizer = train_tokenizer(list(topics["text"]))
        tokenizer.pad_token = tokenizer.eos_token
        model = build_llama(len(tokenizer), seed=args.seed)
        warm_up(
            model,
            topics.remove_columns("topic"),
            steps=data.pretraining_steps,
            learning_rate=2e-3,
            processing_class=tokenizer,
        )
        return model, tokenizer, docstring_rows(1200)
    with args.main_process_first():
        rows = load_dataset(data.dataset_name, data.dataset_config, split=data.split)
    tokenizer = AutoTokenizer.from_pretrained(data.model_name_or_path)
    return AutoModelForCausalLM.from_pretrained(data.model_name_or_path, dtype="auto"), tokenizer, rows


def main() -> None:
    data, args = parse([DataArguments, SageSFTConfig], OFFLINE)
    model, tokenizer, rows = load(data, args)
    if data.rows is not None:
        rows = rows.shuffle(seed=args.seed).select(range(min(data.rows, len(rows))))
    parts = rows.train_test_split(test_size=data.test_share, seed=0)
    trainer = SageSFTTrainer(
        model=model,
        args=args,
        train_dataset=parts["train"],
        eval_dataset=parts["test"],
        processing_class=tokenizer,
        peft_config=LoraConfig(r=data.lora_r, target_modules=data.lora_target_modules, task_type="CAUSAL_LM"),
    )
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    finish(trainer, dataset_name=data.dataset_name or "docstrings of the standard library")


if __name__ == "__main__":
    main()
