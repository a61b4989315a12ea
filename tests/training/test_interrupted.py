"""An interrupted training, and an interrupted push, say how they go on; the interrupt passes on."""

import pytest
from transformers import TrainerCallback

from sage_hf import SageConfig, SageSelector, SageTrainer, SageTrainingArguments

from ..cases import image_rows, vit


class Interrupts(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **others):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("step", "told"), [(1, "No checkpoint is kept of 1 steps"), (5, "checkpoint-4")])
def test_a_training_names_the_checkpoint_that_it_goes_on_from(tmp_path, caplog, step, told):
    arguments = SageTrainingArguments(
        str(tmp_path / "out"),
        sage_fraction=0.5,
        sage_warmup_epochs=1,
        sage_strategy="agreement",
        sage_sketch_size=8,
        num_train_epochs=3,
        per_device_train_batch_size=8,
        save_strategy="steps",
        save_steps=2,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = SageTrainer(model=vit(), args=arguments, train_dataset=image_rows(48), callbacks=[Interrupts(step)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    (said,) = [message for message in caplog.messages if "Interrupted" in message]
    assert told in said and ("resume_from_checkpoint=True" in said) == (step == 5)


def test_a_push_says_that_what_was_sent_stays(caplog, monkeypatch):
    config = SageConfig(strategy="agreement", fraction=0.3, sketch_size=8, batch_size=8, shard_size=16)
    selection = SageSelector(vit(), config=config, progress=False).select(image_rows(30))

    def push(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("sage_hf.selection.base.push", push)
    with pytest.raises(KeyboardInterrupt):
        selection.push_to_hub("me/data", token="hf_abcdefghijk")
    assert [message for message in caplog.messages if "Interrupted" in message] == [
        "Interrupted: What was sent stays there and is not sent again; no card tells of rows that are not there. The "
        "same push goes on with overwrite=True."
    ]
