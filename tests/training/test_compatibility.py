"""What else a Trainer does goes on working, and what has no gradient a row is refused before the first step."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset, IterableDataset
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorWithFlattening,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer

from examples.python_text import build_llama, docstring_rows, train_tokenizer
from sage_hf import SageArguments, SageError, SageMixin, SageTrainer
from sage_hf.training.loss import smoothed

from ..cases import bert, image_rows, llama, lm_batch, vit
from .runs import QUIET, losses, make, sage_args, selection_logs, train


def lm_rows(count=32):
    torch.manual_seed(1)
    batch = lm_batch(count)
    return Dataset.from_dict({name: value.tolist() for name, value in batch.items()})


def assert_scored_by_the_training_loss(trainer):
    """Losses and gradients of the rows are those of Trainer's own `compute_loss` of each row alone, in eval mode."""
    selector = trainer._selector(trainer.get_train_dataloader())
    selection = selector.select(trainer.train_dataset)
    model, targets = trainer.model.eval(), [weight for _, weight in selector.collector.layout.held]
    together = selector.collector(dict(trainer.data_collator(list(trainer.train_dataset))))
    for number, row in enumerate(trainer.train_dataset):
        batch = trainer.data_collator([row])
        loss = trainer.compute_loss(model, dict(batch))
        expected = torch.cat([each.flatten() for each in torch.autograd.grad(loss, targets)])
        assert selection.losses[number] == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-5)
        error = (together[number] - expected).norm()
        assert error <= 1e-4 * expected.norm()


# ------------------------------------------------------- losses of the Trainer
def focal(outputs, labels, num_items_in_batch=None):
    """Not built on one of torch's loss functions, so that it can only be taken a row at a time."""
    probabilities = outputs.logits.softmax(-1).gather(1, labels[:, None])[:, 0]
    return ((1 - probabilities) ** 2 * -probabilities.log()).mean()


def weighted(outputs, labels, num_items_in_batch=None):
    loss = F.cross_entropy(outputs.logits, labels, reduction="sum" if num_items_in_batch else "mean")
    return loss / num_items_in_batch if num_items_in_batch else 2 * loss


@pytest.mark.parametrize("loss", [focal, weighted], ids=["focal", "weighted"])
def test_rows_are_scored_by_compute_loss_func(tmp_path, loss, caplog):
    args = sage_args(tmp_path, sage_fraction=0.5, sage_projection="none", sage_group_by="none")
    trainer = train(vit(), args, image_rows(24), compute_loss_func=loss)
    assert len(trainer.selection) == 12
    assert ("one at a time" in caplog.text) == (loss is focal)
    assert_scored_by_the_training_loss(trainer)


@pytest.mark.parametrize("kind", ["classes", "language model"])
def test_rows_are_scored_with_label_smoothing(tmp_path, kind, caplog):
    settings = {"label_smoothing_factor": 0.2, "sage_projection": "none", "sage_group_by": "none"}
    model, rows = (vit(), image_rows(24)) if kind == "classes" else (llama(), lm_rows(24))
    trainer = train(model, sage_args(tmp_path, **settings), rows)
    assert len(trainer.selection) == 10
    assert "one at a time" not in caplog.text
    assert_scored_by_the_training_loss(trainer)


def test_label_smoothing_without_labels_is_said():
    with pytest.raises(SageError, match="Label smoothing needs labels"):
        smoothed(0.1, vit())({"logits": torch.zeros(1, 3)}, {"pixel_values": torch.zeros(1, 1, 8, 8)})


def test_a_compute_loss_func_that_needs_the_number_of_items_is_named(tmp_path):
    def needs_items(outputs, labels, num_items_in_batch):
        return F.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    with pytest.raises(SageError, match="num_items_in_batch") as caught:
        train(vit(), sage_args(tmp_path), image_rows(24), compute_loss_func=needs_items)
    assert caught.value.where == "compute_loss_func"


def test_a_subclass_gives_the_loss_of_its_own_compute_loss(tmp_path):
    class Weighted(SageTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = (F.cross_entropy(outputs.logits, labels, reduction="none") * (1 + labels)).mean()
            return (loss, outputs) if return_outputs else loss

        def get_sage_loss_function(self):
            return lambda outputs, batch: (
                F.cross_entropy(outputs.logits, batch["labels"], reduction="none") * (1 + batch["labels"])
            )

    args = sage_args(tmp_path, sage_projection="none", sage_group_by="none")
    assert_scored_by_the_training_loss(train(vit(), args, image_rows(24), Weighted))


def test_a_compute_loss_that_is_not_scored_by_is_said(tmp_path, caplog):
    class Silent(SageTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            return super().compute_loss(model, inputs, return_outputs, **kwargs)

    make(vit(), sage_args(tmp_path), image_rows(9))
    assert not caplog.text
    make(vit(), sage_args(tmp_path), image_rows(9), Silent)
    assert "Override get_sage_loss_function" in caplog.text


# ------------------------------------------------------- the ways of training
@pytest.mark.parametrize(
    "change",
    [
        {"gradient_accumulation_steps": 2},
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"torch_compile": True, "torch_compile_backend": "eager"},
        {"optim": "adafactor"},
        {"dataloader_num_workers": 1},
        {"neftune_noise_alpha": 5.0},
        {"auto_find_batch_size": True},
        {"average_tokens_across_devices": False},
        {"sage_batch_size": 5},
        {"sage_consensus": "exact"},
        {"sage_strategy": "random"},
        {"sage_strategy": "auto"},
        {
            "sage_strategy": "coverage",
            "sage_group_by": "cluster",
            "sage_num_clusters": 3,
            "sage_spectrum_power": "0.5",
        },
    ],
    ids=str,
)
def test_trains_to_the_end_with(tmp_path, change):
    trainer = train(llama(), sage_args(tmp_path, sage_refresh_epochs=2, **change), lm_rows())
    assert (
        trainer.state.global_step
        == trainer.state.max_steps
        == 4 + 3 * 2 - ((change == {"gradient_accumulation_steps": 2}) * 5)
    )
    assert len(selection_logs(trainer)) == 2
    assert np.isfinite(losses(trainer)).all()
    assert not trainer.selection.stats.one_at_a_time
    scores = trainer.selection.scores
    assert np.isfinite(scores).all()
    assert scores.std() > 0.01


def test_bf16_scores_are_those_of_float32_up_to_rounding(tmp_path):
    """After the first step the model computes in bfloat16, in which rows still are told apart."""
    rows = lm_rows()
    exact = train(llama(), sage_args(tmp_path, learning_rate=1e-6), rows)
    rounded = train(llama(), sage_args(tmp_path, learning_rate=1e-6, bf16=True), rows)
    assert np.abs(exact.selection.scores - rounded.selection.scores).max() < 0.1
    assert np.corrcoef(exact.selection.scores, rounded.selection.scores)[0, 1] > 0.99


def test_only_adapters_are_scored(tmp_path):
    model = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    before = {name: value.clone() for name, value in model.named_parameters() if not value.requires_grad}
    trainer = train(model, sage_args(tmp_path, save_strategy="steps", save_steps=5), lm_rows())
    assert trainer.selection.stats.target_weights == adapters
    assert all(torch.equal(value, dict(model.named_parameters())[name]) for name, value in before.items())
    again = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    resumed = train(again, sage_args(tmp_path / "again"), lm_rows(), resume=tmp_path / "checkpoint-5")
    assert losses(resumed) == losses(trainer)


def test_evaluation_early_stopping_and_the_best_model(tmp_path):
    stop = EarlyStoppingCallback(early_stopping_patience=1)
    args = sage_args(
        tmp_path,
        sage_refresh_epochs=1,
        num_train_epochs=8,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,  # the loss falls, so the first epoch stays the best
    )
    trainer = train(bert(), args, text_rows(), eval_dataset=text_rows(), callbacks=[stop])
    assert trainer.state.global_step < trainer.state.max_steps
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-5")
    saved = bert().from_pretrained(trainer.state.best_model_checkpoint)
    assert torch.equal(trainer.model.classifier.weight, saved.classifier.weight)


def text_rows(count=40):
    torch.manual_seed(1)
    ids = torch.randint(3, 64, (count, 9)).tolist()
    return Dataset.from_dict({"input_ids": ids, "labels": [row % 3 for row in range(count)]})


def test_callbacks_see_the_epochs_and_the_loader_that_is_used(tmp_path):
    seen = []

    class Watch(TrainerCallback):
        def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
            seen.append(["begin", round(state.epoch or 0, 3)])

        def on_epoch_end(self, args, state, control, train_dataloader=None, **kwargs):
            seen.append(["end", round(state.epoch, 3), len(train_dataloader)])

    args = sage_args(tmp_path, sage_warmup_epochs=0.6, num_train_epochs=1.6)
    train(bert(), args, text_rows(), callbacks=[Watch()])
    assert seen == [["begin", 0], ["end", 0.6, 5], ["begin", 0.6], ["end", 1.6, 2]]


def test_a_model_from_model_init_is_scored(tmp_path):
    trainer = make(None, sage_args(tmp_path), image_rows(40), model_init=lambda: vit())
    trainer.train()
    assert len(trainer.selection) == 16


def test_masks_drawn_by_the_collator_do_not_slow_the_scoring_down(tmp_path, caplog):
    from transformers import BertConfig, BertForMaskedLM

    from ..cases import BERT

    tokenizer = train_tokenizer(["some words to be masked in a short text"] * 5, 300)
    tokenizer.add_special_tokens({"mask_token": "<mask>", "pad_token": "<pad>"})
    rows = Dataset.from_list([{"input_ids": tokenizer("words to be masked " * 3).input_ids} for _ in range(24)])
    model = BertForMaskedLM(BertConfig(**{**BERT, "vocab_size": len(tokenizer)}))
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3)
    trainer = train(model, sage_args(tmp_path), rows, data_collator=collator)
    assert not trainer.selection.stats.one_at_a_time
    assert len(trainer.selection) == 10


@pytest.mark.parametrize("form", ["torch", "numpy", "transform"])
def test_rows_are_read_in_the_datasets_own_format(tmp_path, form):
    """A collator that needs tensors gets tensors while rows are scored, too."""
    rows = image_rows(40)
    if form == "transform":
        changed = rows.with_transform(
            lambda batch: {"pixel_values": [torch.tensor(p) for p in batch["pixel_values"]], "label": batch["label"]}
        )
    else:
        changed = rows.with_format(form)

    def stack(features):
        kind = torch.Tensor if form != "numpy" else np.ndarray
        assert all(isinstance(feature["pixel_values"], kind) for feature in features)
        pixels = torch.stack([torch.as_tensor(feature["pixel_values"]) for feature in features])
        return {"pixel_values": pixels, "labels": torch.tensor([int(feature["label"]) for feature in features])}

    args = {"remove_unused_columns": False}
    plain = train(vit(), sage_args(tmp_path / "plain"), rows)
    formatted = train(vit(), sage_args(tmp_path, **args), changed, data_collator=stack)
    assert formatted.selection.indices.tolist() == plain.selection.indices.tolist()
    assert losses(formatted) == losses(plain)


def test_a_sequence_to_sequence_trainer_trains_on_a_subset(tmp_path):
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    from ..cases import head

    @dataclass
    class Arguments(SageArguments, Seq2SeqTrainingArguments):
        pass

    class Mixed(SageMixin, Seq2SeqTrainer):
        pass

    model, batch = head("seq2seq")
    tokenizer = train_tokenizer(["a few words"], 280)
    tokenizer.pad_token = tokenizer.eos_token
    rows = Dataset.from_dict({name: value.tolist() * 6 for name, value in batch.items()})
    args = Arguments(str(tmp_path), **{**QUIET, "sage_fraction": 0.5, "sage_group_by": "none"})
    trainer = train(model, args, rows, Mixed, data_collator=DataCollatorForSeq2Seq(tokenizer, model))
    assert len(trainer.selection) == 12
    assert not trainer.selection.stats.one_at_a_time


# ------------------------------------------------------- trl
@dataclass
class SageSFTConfig(SageArguments, SFTConfig):
    pass


class SageSFTTrainer(SageMixin, SFTTrainer):
    pass


def sft(folder, trainer_class=SageSFTTrainer, **changes):
    rows = docstring_rows(40, 120)
    tokenizer = train_tokenizer([*rows["prompt"], *rows["completion"]], 400)
    tokenizer.pad_token = tokenizer.eos_token
    settings = {**QUIET, "bf16": False, "max_length": 64, "sage_fraction": 0.4, "num_train_epochs": 3, **changes}
    resume = settings.pop("resume", None)
    return train(
        build_llama(len(tokenizer)),
        SageSFTConfig(str(folder), **settings),
        rows,
        trainer_class,
        resume,
        processing_class=tokenizer,
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )


def test_sft_with_lora_trains_on_a_subset_and_resumes(tmp_path):
    whole = sft(tmp_path, save_strategy="steps", save_steps=1, sage_refresh_epochs=1)
    assert len(whole.selections) == 2
    assert not whole.selection.stats.one_at_a_time
    assert whole.selection.stats.target_weights == sum(
        parameter.numel() for parameter in whole.model.parameters() if parameter.requires_grad
    )
    steps = whole.state.max_steps
    for step in (2, steps - 3, steps - 1):
        again = sft(tmp_path / "again", sage_refresh_epochs=1, resume=tmp_path / f"checkpoint-{step}")
        assert losses(again) == losses(whole)


def test_sft_with_all_rows_kept_logs_what_trl_logs(tmp_path):
    """Its metrics, too, which are averaged and cleared at every row of the log."""
    settings = {"logging_steps": 4, "sage_fraction": 1.0, "sage_warmup_epochs": 0.0, "sage_refresh_epochs": 1}
    ours = sft(tmp_path, **settings)
    theirs = sft(tmp_path, trainer_class=SFTTrainer, **{**settings, "sage_fraction": None})
    told = [entry for entry in ours.state.log_history if "sage_rows_kept" not in entry]
    assert told[:-1] == theirs.state.log_history[:-1]
    assert "mean_token_accuracy" in told[0]
    assert len(selection_logs(ours)) == 3


@pytest.mark.parametrize("option", [{"packing": True}, {"padding_free": True, "max_length": None}], ids=str)
def test_packed_rows_are_refused_by_the_options_name(tmp_path, option):
    with pytest.raises(SageError, match="joins rows") as caught:
        sft(tmp_path, **option)
    assert caught.value.where in option


# ------------------------------------------------------- refused before the first step
class Contrastive(nn.Module):
    """Each row's other half is to be told from the halves of the other rows."""

    def __init__(self, by_hand=False):
        super().__init__()
        self.layer = nn.Linear(64, 8)
        self.by_hand = by_hand

    def forward(self, pixel_values, labels=None):
        x = self.layer(pixel_values.flatten(1))
        similarity = x @ (x + 1).T
        if self.by_hand:
            return {"loss": (similarity.logsumexp(1) - similarity.diagonal()).mean(), "logits": x}
        return {"loss": F.cross_entropy(similarity, torch.arange(len(x))), "logits": x}


class NoSteps(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        raise AssertionError("a step was taken")


def flattening(features):
    return DataCollatorWithFlattening()([{"input_ids": f["input_ids"]} for f in features])


REFUSED = {
    "in-batch negatives": (lambda: Contrastive(), image_rows, {}, {}, "in-batch negatives"),
    "in-batch negatives by hand": (lambda: Contrastive(by_hand=True), image_rows, {}, {}, "in-batch negatives"),
    "a flattening collator": (llama, lm_rows, {}, {"data_collator": flattening}, "The collator turned 4 rows into 1"),
    "a list": (vit, lambda: [{"pixel_values": 0}], {}, {}, "A list is not a dataset"),
    "an empty dataset": (vit, lambda: image_rows(9).select([]), {}, {}, "no rows"),
    "more rows than there are": (
        vit,
        image_rows,
        {"sage_fraction": None, "sage_num_examples": 999},
        {},
        "999",
    ),
    "a column that is not there": (vit, image_rows, {"sage_group_by": "topic"}, {}, "no column 'topic'"),
    "target modules that are not there": (vit, image_rows, {"sage_target_modules": "lora"}, {}, "lora"),
    "a subset that fills no batch": (
        vit,
        image_rows,
        {"sage_fraction": 0.1, "dataloader_drop_last": True},
        {},
        "fills no batch",
    ),
    "warm-up as long as max_steps": (vit, image_rows, {"max_steps": 8}, {}, "not shorter than the training"),
}


@pytest.mark.parametrize(("model", "rows", "settings", "others", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_is_refused_before_the_first_step(tmp_path, model, rows, settings, others, message):
    args = sage_args(tmp_path, **settings)
    with pytest.raises(SageError, match=message):
        train(model(), args, rows(), callbacks=[NoSteps()], **others)


def test_a_stream_is_refused_with_the_way_out(tmp_path):
    stream = IterableDataset.from_generator(lambda: iter([{"pixel_values": [0.0]}]))
    with pytest.raises(SageError, match="no length and no row numbers") as caught:
        make(vit(), sage_args(tmp_path, max_steps=50), stream)
    assert "from_generator" in caught.value.fix


def test_a_stream_trains_when_selection_is_off(tmp_path):
    rows = image_rows(24)
    stream = IterableDataset.from_generator(lambda: iter(rows))
    train(vit(), sage_args(tmp_path, sage_fraction=None, max_steps=2), stream)


def test_a_device_without_memory_names_the_batch_size(tmp_path):
    class Full(SageTrainer):
        def _selector(self, dataloader):
            selector = super()._selector(dataloader)
            if self.state.global_step:
                selector.select = lambda dataset: (_ for _ in ()).throw(torch.OutOfMemoryError("full"))
            return selector

    with pytest.raises(SageError, match="not enough to score 8 rows") as caught:
        train(vit(), sage_args(tmp_path), image_rows(24), Full)
    assert caught.value.where == "sage_batch_size"


def test_a_trainer_that_only_evaluates_needs_no_rows(tmp_path):
    trainer = make(vit(), sage_args(tmp_path), None, eval_dataset=image_rows(9))
    assert trainer.evaluate()["eval_loss"] > 0
    assert Trainer in type(trainer).__mro__
