import peft
import pytest
import torch
from torch import nn
from transformers import AutoModelForImageClassification, LlamaForCausalLM, Trainer

from sage_hf import GradientCollector
from sage_hf.data.status import SCORED, ZERO_GRADIENT
from sage_hf.errors import ConfigError
from sage_hf.gradients.adam import AdamUpdates, read_moments
from sage_hf.passes.extractor import GradientExtractor

from ..cases import image_rows, llama, pad_tokens, token_rows, vit
from ..reference import per_example_gradients
from ..training.runs import make, plain_args

RATE = 1e-3


def trained(folder, model, rows, **settings):
    """A real training; gives its trainer, whose checkpoint of step 3 lies in the folder."""
    args = plain_args(folder, save_strategy="steps", save_steps=3, max_steps=3, weight_decay=0.01, **settings)
    collator = pad_tokens if "input_ids" in rows.column_names else None
    trainer = make(model, args, rows, Trainer, data_collator=collator)
    trainer.train()
    return trainer


def batch_of(rows):
    return {"pixel_values": torch.tensor(rows["pixel_values"][:]), "labels": torch.tensor(rows["label"][:])}


@pytest.fixture(scope="module")
def of_images(tmp_path_factory):
    """A vision transformer after three steps: its trainer, and the folder of its checkpoint."""
    folder = tmp_path_factory.mktemp("images")
    return trained(folder, vit(), image_rows(24)), folder / "checkpoint-3"


def loaded(folder):
    return AutoModelForImageClassification.from_pretrained(folder)


def updates_of(model, folder, **settings):
    collector = GradientCollector(model, **settings)
    return collector, AdamUpdates(collector, folder)


def test_every_parameter_has_the_means_that_the_optimizer_kept_of_it(of_images):
    trainer, folder = of_images
    own = dict(trainer.model.named_parameters())
    found = read_moments(loaded(folder), folder / "optimizer.pt", list(own))
    assert list(found) == list(own)
    for name, moments in found.items():
        state = trainer.optimizer.state[own[name]]
        assert torch.equal(moments.mean, state["exp_avg"]), name
        assert torch.equal(moments.square, state["exp_avg_sq"]), name
        assert (moments.step, moments.betas, moments.eps) == (3, (0.9, 0.999), 1e-8)


@pytest.mark.parametrize("modules", ["auto", "all"])
def test_an_update_is_what_one_step_of_torch_on_the_row_alone_does(of_images, modules):
    _, folder = of_images
    batch = batch_of(image_rows(4, seed=5))
    collector, updates = updates_of(loaded(folder), folder, target_modules=modules, projection=None)
    rows = GradientExtractor(collector, updates=updates).extract(batch).vectors
    for index in range(4):
        model = loaded(folder).eval()
        # The optimizer that Trainer makes, with the state that it saved; the rate is of this one step.
        optimizer = make(model, plain_args(folder, weight_decay=0.0), image_rows(4), Trainer).create_optimizer()
        optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
        for group in optimizer.param_groups:
            group.update(lr=RATE, weight_decay=0.0)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        model(**{name: value[index : index + 1] for name, value in batch.items()}).loss.backward()
        optimizer.step()
        after = dict(model.named_parameters())
        moved = torch.cat([(before[block.name] - after[block.name]).flatten() / RATE for block in collector.blocks])
        # Of a weight without a gradient (a key's bias), rounding is all that Adam has seen.
        assert (rows[index] - moved.detach()).norm() < 1e-3 * moved.norm()


@pytest.mark.parametrize("most", [1, 2, 100])
def test_updates_are_made_of_exact_gradients_and_then_projected_as_plain_rows_are(of_images, most):
    _, folder = of_images
    model, batch = loaded(folder), batch_of(image_rows(5, seed=6))
    collector, updates = updates_of(model, folder, projection=3)
    updates.rows = most
    taken = GradientExtractor(collector, updates=updates).extract(batch)
    assert taken.vectors.shape == (5, collector.width)
    names = [block.name for block in collector.blocks]
    exact = per_example_gradients(loaded(folder), batch, names)
    moments, start = read_moments(model, folder / "optimizer.pt", names), 0
    for block, parameter in collector.layout.held:
        made = moments[block.name].updates(exact[:, start : start + parameter.numel()])
        start += parameter.numel()
        for row in range(5):
            wanted = block.project(made[row].view_as(parameter)).flatten()
            assert (taken.vectors[row, block.columns] - wanted).norm() < 1e-3 * wanted.norm(), block.name
    plain = GradientExtractor(collector, updates=updates).for_target().extract(batch)
    assert torch.equal(plain.vectors, collector(batch))
    assert torch.allclose(plain.numbers, taken.numbers, atol=1e-6)


def test_rows_without_a_gradient_have_no_update_though_the_rows_before_move_the_weights(tmp_path):
    rows = token_rows(16)
    trained(tmp_path, llama(), rows)
    model = LlamaForCausalLM.from_pretrained(tmp_path / "checkpoint-3")
    collector, updates = updates_of(model, tmp_path / "checkpoint-3", projection=2)
    batch = pad_tokens([rows[row] for row in range(4)])
    batch["labels"][2] = -100
    taken = GradientExtractor(collector, updates=updates).extract(batch)
    assert taken.status.tolist() == [SCORED, SCORED, ZERO_GRADIENT, SCORED]
    assert not taken.vectors[2].any() and taken.vectors[1].any()


def test_a_pass_compares_the_gradients_that_updates_are_made_of(of_images, monkeypatch):
    _, folder = of_images
    batch = batch_of(image_rows(6, seed=6))
    collector, updates = updates_of(loaded(folder), folder, projection=3)
    updates.rows = 2
    extractor = GradientExtractor(collector, recheck_every=4, updates=updates)
    extractor.recheck(torch.arange(6), batch, extractor.extract(batch))
    assert extractor.rechecked.rows == 1


def test_adapters_have_the_state_of_their_training_however_they_are_loaded(tmp_path):
    base = llama()
    base.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    trainer = trained(tmp_path, peft.get_peft_model(base, config), token_rows(16))
    folder = tmp_path / "checkpoint-3"
    own = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    for is_trainable in (True, False):
        model = peft.PeftModel.from_pretrained(
            LlamaForCausalLM.from_pretrained(tmp_path / "base"), folder, is_trainable=is_trainable
        )
        _, updates = updates_of(model, folder)
        assert len(updates._moments) == len(own) == 8
        for name, moments in updates._moments.items():
            assert torch.equal(moments.mean, trainer.optimizer.state[own[f"base_model.model.{name}"]]["exp_avg"])


def test_an_optimizer_of_one_group_is_in_the_order_of_the_model(tmp_path):
    model = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(3, 4)).square().sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    found = read_moments(model, tmp_path / "optimizer.pt", [name for name, _ in model.named_parameters()])
    for name, parameter in model.named_parameters():
        assert torch.equal(found[name].mean, optimizer.state[parameter]["exp_avg"])


def test_a_state_that_is_not_the_models_is_refused_by_name(of_images, tmp_path):
    _, folder = of_images
    state = torch.load(folder / "optimizer.pt", weights_only=True)

    def refused(changed, model, words, **settings):
        if changed is not None:
            torch.save(changed, tmp_path / "optimizer.pt")
        with pytest.raises(ConfigError, match=words) as caught:
            updates_of(model, tmp_path, **settings)
        assert "optimizer.pt" in caught.value.where and caught.value.fix

    refused(None, loaded(folder), "cannot be read")
    (tmp_path / "optimizer.pt").write_bytes(b"no state")
    refused(None, loaded(folder), "cannot be read")
    refused({"weights": torch.zeros(3)}, loaded(folder), "cannot be read")
    refused(state, vit(num_labels=5), r"classifier.weight \(\[5, 16\], in the state \[3, 16\]\)")
    frozen = loaded(folder)
    frozen.vit.embeddings.requires_grad_(False)
    refused(state, frozen, "groups of .* parameters, and the model trains")
    missing = {**state, "state": {number: own for number, own in state["state"].items() if number != 3}}
    refused(missing, loaded(folder), "no Adam moments for vit")
    refused({**state, "state": {number: {"step": 1} for number in state["state"]}}, loaded(folder), "no Adam moments")
    largest = [{**group, "amsgrad": True} for group in state["param_groups"]]
    refused({**state, "param_groups": largest}, loaded(folder), "amsgrad")


def test_what_python_code_a_file_holds_is_never_run(of_images, tmp_path):
    _, folder = of_images
    torch.save({"state": {}, "param_groups": [], "harm": ConfigError}, tmp_path / "optimizer.pt")
    with pytest.raises(ConfigError, match="cannot be read: UnpicklingError"):
        updates_of(loaded(folder), tmp_path)


def test_another_state_has_another_fingerprint(of_images, tmp_path):
    _, folder = of_images
    state = torch.load(folder / "optimizer.pt", weights_only=True)
    state["state"][0]["exp_avg"][0] += 1e-3
    torch.save(state, tmp_path / "optimizer.pt")
    prints = [updates_of(loaded(folder), place, target_modules="all")[1].fingerprint for place in (folder, tmp_path)]
    again = updates_of(loaded(folder), folder, target_modules="all")[1].fingerprint
    assert prints[0] == again != prints[1]
