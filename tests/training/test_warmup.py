from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import DefaultDataCollator, PrinterCallback, Trainer, TrainingArguments

from examples.python_text import train_tokenizer
from sage_hf import SageConfig
from sage_hf.errors import ConfigError, DatasetError, GradientError, LabelError
from sage_hf.training.warmup import about_course, warm_up
from sage_hf.training.warmup_steps import Course
from sage_hf.utils.fingerprint import model_fingerprint

from ..cases import bert, head, image_rows, llama, pad_tokens, token_rows, vit


def test_it_learns_and_takes_the_steps_that_it_was_asked_for():
    model, rows = vit(), image_rows(60)
    done = warm_up(model, rows, steps=40, learning_rate=1e-2)
    assert done.steps == 40
    batch = {"pixel_values": torch.tensor(rows["pixel_values"]), "labels": torch.tensor(rows["label"])}
    assert model.eval()(**batch).loss < done.loss < 1.2


def test_a_fraction_sees_that_share_once():
    assert warm_up(vit(), image_rows(60), fraction=0.5, batch_size=10).steps == 3


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    weights = []
    for seed in (0, 0, 1):
        model = vit()
        warm_up(model, image_rows(40), steps=3, learning_rate=1e-2, config=SageConfig(seed=seed))
        weights.append(model.classifier.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def bert_rows(count=50):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 64, (count, 9), generator=generator).tolist()
    return Dataset.from_dict({"input_ids": ids, "label": [number % 3 for number in range(count)]})


@pytest.mark.parametrize(
    ("build", "rows", "collator"),
    [(vit, image_rows, None), (bert, bert_rows, None), (llama, token_rows, pad_tokens)],
    ids=["image", "with dropout", "language"],
)
def test_the_weights_are_those_of_a_trainer_to_the_bit(tmp_path, build, rows, collator):
    ours, theirs = build(), build()
    warm_up(ours, rows(), steps=11, learning_rate=1e-2, data_collator=collator, config=SageConfig(seed=5))
    args = TrainingArguments(
        str(tmp_path),
        max_steps=11,
        learning_rate=1e-2,
        per_device_train_batch_size=16,
        seed=5,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
    )
    trainer = Trainer(model=theirs, args=args, train_dataset=rows(), data_collator=collator)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    assert model_fingerprint(ours) == model_fingerprint(theirs)


# ------------------------------------------------------------------- it is kept
def asked(folder, build=vit, rows=None, **changes):
    """A warm-up that is kept, and the digest of the weights that it ended with."""
    settings = {"steps": 3, "learning_rate": 1e-2, "cache_dir": folder, **changes}
    model = build()
    done = warm_up(model, rows if rows is not None else image_rows(40), **settings)
    return done, model_fingerprint(model)


def test_the_same_warm_up_is_made_once(tmp_path, monkeypatch):
    first, weights = asked(tmp_path)
    assert not first.is_kept
    assert first.file.parent == tmp_path
    monkeypatch.setattr("sage_hf.training.warmup.take_steps", None)
    again, same = asked(tmp_path)
    assert (again.is_kept, again.steps, again.loss, again.file) == (True, 3, first.loss, first.file)
    assert same == weights


def with_dropout():
    model = vit()
    model.config.hidden_dropout_prob = 0.5
    return model


def frozen():
    model = vit()
    model.vit.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 4},
        {"steps": None, "fraction": 1.0},
        {"learning_rate": 2e-2},
        {"batch_size": 8},
        {"config": SageConfig(seed=1)},
        {"build": with_dropout},
        {"build": frozen},
        {"rows": image_rows(41)},
        {"rows": image_rows(40).map(lambda row, number: {"label": (number * 7) % 3}, with_indices=True)},
        {"data_collator": DefaultDataCollator()},
    ],
    ids=lambda change: ", ".join(change),
)
def test_another_warm_up_is_another_file(tmp_path, change):
    asked(tmp_path)
    assert not asked(tmp_path, **change)[0].is_kept
    assert asked(tmp_path)[0] == asked(tmp_path)[0]
    assert len(list(tmp_path.iterdir())) == 2


def test_settings_that_it_does_not_depend_on_are_free(tmp_path):
    asked(tmp_path)
    assert asked(tmp_path, config=SageConfig(fraction=0.5, strategy="random", batch_size=3, sketch_size=4))[0].is_kept


def test_buffers_are_kept_and_frozen_weights_are_not(tmp_path):
    batch = head("resnet")[1]
    rows = Dataset.from_dict({name: value.tolist() for name, value in batch.items()})

    def build():
        built = head("resnet")[0]
        built.resnet.requires_grad_(False)
        return built

    done, weights = asked(tmp_path, build, rows, batch_size=4)
    assert asked(tmp_path, build, rows, batch_size=4) == (type(done)(3, done.loss, done.file, True), weights)
    assert weights != model_fingerprint(build())
    assert done.file.stat().st_size < 8000


def test_only_adapters_are_trained_and_kept(tmp_path):
    def build():
        torch.manual_seed(0)
        return get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))

    done, weights = asked(tmp_path, build, token_rows(), data_collator=pad_tokens)
    again, same = asked(tmp_path, build, token_rows(), data_collator=pad_tokens)
    assert again.is_kept
    assert same == weights != model_fingerprint(build())
    assert done.file.stat().st_size < 8000


def test_a_tokenizer_that_was_used_is_the_same_tokenizer(tmp_path):
    tokenizer = train_tokenizer(["a b c"], 260)
    rows = Dataset.from_dict({"text": ["a b", "c", "a"] * 5})
    settings = {"build": lambda: llama(vocab_size=260), "rows": rows, "processing_class": tokenizer}
    asked(tmp_path, **settings)
    tokenizer(["a b c", "a"], truncation=True, max_length=2)
    assert asked(tmp_path, **settings)[0].is_kept


def test_a_damaged_file_is_set_aside_and_the_warm_up_made_again(tmp_path, caplog):
    done, _ = asked(tmp_path)
    done.file.write_bytes(done.file.read_bytes()[:100])
    assert not asked(tmp_path)[0].is_kept
    assert f"{done.file} is missing or damaged" in caplog.text
    assert asked(tmp_path)[0].is_kept


def test_a_folder_that_cannot_be_written_to_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    done, _ = asked(tmp_path / "file")
    assert done.file is None
    assert "could not be stored" in caplog.text


# ------------------------------------------------------------------ did it learn?
def test_a_warm_up_that_learns_tells_how_far_the_loss_fell_and_warns_of_nothing(caplog):
    done = warm_up(vit(), image_rows(60), steps=40, learning_rate=1e-2)
    assert done.last_loss < 0.9 * done.first_loss
    assert done.last_loss < done.loss < done.first_loss
    assert "loss of the warm-up" not in caplog.text


def test_a_warm_up_that_learns_nothing_is_a_warning_with_the_numbers_and_the_remedy(caplog):
    done = warm_up(vit(), image_rows(60), steps=20, learning_rate=1e-9)
    assert f"did not fall, from {done.first_loss:.3f}" in caplog.text
    assert f"guessing has {np.log(3):.3f}" in caplog.text
    assert "larger learning rate" in caplog.text


def test_a_model_that_has_learned_already_is_no_warning(caplog):
    model, rows = vit(), image_rows(60)
    warm_up(model, rows, steps=80, learning_rate=1e-2)
    again = warm_up(model, rows, steps=20, learning_rate=1e-9)
    assert again.last_loss == pytest.approx(again.first_loss, rel=0.5)
    assert caplog.text == ""


def test_an_earlier_warm_up_that_learned_nothing_is_still_a_warning_when_it_is_read_again(tmp_path, caplog):
    first, _ = asked(tmp_path, steps=20, learning_rate=1e-9)
    caplog.clear()
    again, _ = asked(tmp_path, steps=20, learning_rate=1e-9)
    assert again == replace(first, is_kept=True)
    assert "did not fall" in caplog.text


def test_a_loss_that_rises_is_a_warning_whatever_it_is_of():
    text = about_course(Course.of(torch.linspace(0.1, 2.0, 50)), None)
    assert text.startswith("The loss of the warm-up rose, from 0.274") and "Lower the learning rate" in text


@pytest.mark.parametrize("steps", [1, 3, 14])
def test_few_steps_tell_nothing(steps):
    course = Course.of(torch.linspace(0.1, 9.0, steps))
    assert (course.first, course.last) == (None, None)
    assert about_course(course, 0.5) == ""


@pytest.mark.parametrize("seed", range(20))
def test_a_loss_that_only_wavers_rises_hardly_ever(seed):
    wavering = [Course.of(torch.randn(60, generator=torch.Generator().manual_seed(40 * seed + n))) for n in range(40)]
    assert sum(course.rose for course in wavering) <= 8
    assert all(not about_course(course, None) or course.rose for course in wavering)


# ----------------------------------------------------------------- what is refused
def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(GradientError, match="loss of the warm-up is"):
        warm_up(vit(), image_rows(20), steps=3, learning_rate=1e30)


def test_a_model_without_a_loss_or_a_trainable_weight_is_refused():
    class Lossless(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def forward(self, pixel_values, labels):
            return {"logits": self.layer(pixel_values[:, 0, 0, :1])}

    with pytest.raises(LabelError, match="returns no loss"):
        warm_up(Lossless(), image_rows(20), steps=1)
    with pytest.raises(ConfigError, match="no trainable weight"):
        warm_up(vit().requires_grad_(False), image_rows(20), steps=1)


def test_modes_and_random_state_come_back():
    model, state = vit(), torch.get_rng_state()
    model.eval()
    model.vit.embeddings.train()
    before = [module.training for module in model.modules()]
    warm_up(model, image_rows(20), steps=1)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)


def test_tokens_are_padded_as_for_the_selection():
    tokenizer = train_tokenizer(["a"], 260)
    assert warm_up(llama(), token_rows(), steps=2, processing_class=tokenizer).steps == 2


@pytest.mark.parametrize(
    "settings", [{}, {"steps": 1, "fraction": 0.5}, {"steps": 0}, {"fraction": 0.0}, {"fraction": 1.5}]
)
def test_impossible_lengths_are_refused(settings):
    with pytest.raises(ConfigError):
        warm_up(vit(), image_rows(20), **settings)


def test_an_empty_dataset_is_refused():
    with pytest.raises(DatasetError, match="no rows"):
        warm_up(vit(), image_rows(20).select([]), steps=1)


def test_a_row_that_cannot_be_used_is_named_by_its_number_in_the_dataset():
    rows = image_rows(60)
    rows = rows.remove_columns("label").add_column("label", [0] * 50 + [7] * 10)
    with pytest.raises(LabelError, match=r"label is 7.*10 rows, first 50, 51, 52, 53, 54"):
        warm_up(vit(), rows, fraction=1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("steps", value) for value in (1.5, "3", True, -1)),
        *(("learning_rate", value) for value in (float("nan"), float("inf"), -1, "x", None)),
        *(("fraction", value) for value in ("0.5", float("nan"))),
        *(("batch_size", value) for value in (1.5, "8", 0)),
    ],
)
def test_a_number_that_is_none_is_refused_by_name(name, value):
    settings = {"steps": 1, name: value} if name != "fraction" else {"fraction": value}
    with pytest.raises(ConfigError) as caught:
        warm_up(vit(), image_rows(20), **settings)
    assert caught.value.where == name and repr(value) in caught.value.what


def test_numbers_of_numpy_are_numbers():
    assert warm_up(vit(), image_rows(20), steps=np.int64(2), learning_rate=np.float32(1e-3)).steps == 2
