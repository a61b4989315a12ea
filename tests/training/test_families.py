"""With all rows kept, SageTrainer is Trainer to the bit, whatever the family: weights, logs and random states."""

import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    Trainer,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    default_data_collator,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from sage_hf import SageTrainer
from sage_hf.utils.fingerprint import model_fingerprint

from ..cases import HEADS, VOCABULARY, head, llama, lm_batch
from .runs import plain_args, sage_args, train

DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
AUDIO = {
    "vocab_size": 12,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "conv_dim": [16, 16],
    "conv_kernel": [8, 4],
    "conv_stride": [4, 4],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_prob": 0.0,
    "classifier_proj_size": 8,
    "num_labels": 3,
    "pad_token_id": 0,
}
LANGUAGE = {
    "dynamic rope": ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 4, "attention_dropout": 0.1}),
    "mistral": ("mistral", {"head_dim": 8, "sliding_window": 4}),
    "gemma": ("gemma", {"head_dim": 8}),
    "opt": ("opt", {"ffn_dim": 32, "word_embed_proj_dim": 16, "dropout": 0.1}),
    "mixture of experts": ("mixtral", {"num_local_experts": 4, "output_router_logits": True, "head_dim": 8}),
    "state space": ("mamba", {"state_size": 4, "time_step_rank": 2}),
}


def causal(name):
    torch.manual_seed(0)
    kind, changes = LANGUAGE[name]
    config = CONFIG_MAPPING[kind](**{**SMALL, **changes})
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config), lm_batch()


def audio(kind):
    torch.manual_seed(0)
    model = kind(Wav2Vec2Config(**AUDIO))
    labels = torch.randint(1, 12, (4, 3)) if kind is Wav2Vec2ForCTC else torch.tensor([0, 1, 2, 1])
    return model, {"input_values": torch.randn(4, 320), "labels": labels}


FAMILIES = {name: (head, name) for name in HEADS}
FAMILIES |= {name: (causal, name) for name in LANGUAGE}
FAMILIES |= {"audio": (audio, Wav2Vec2ForSequenceClassification), "speech": (audio, Wav2Vec2ForCTC)}
FAMILIES |= {"no padding": (lambda length: (llama(), lm_batch(length=length)), 5)}


def remaining(history):
    """A log without the selection's rows and wall times."""
    return [
        {name: value for name, value in entry.items() if not name.endswith(("runtime", "per_second"))}
        for entry in history
        if "sage_rows_kept" not in entry
    ]


def trained(family, arguments, trainer_class):
    """All that must be the same after a training from the same random state."""
    build, which = FAMILIES[family]
    model, batch = build(which)
    rows = Dataset.from_dict({name: value.tolist() * 4 for name, value in batch.items()})
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    trainer = train(model, arguments, rows, trainer_class, data_collator=default_data_collator)
    states = (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate())
    return model_fingerprint(trainer.model), remaining(trainer.state.log_history), states, trainer


SHORT = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 6,
    "learning_rate": 1e-3,
    "remove_unused_columns": False,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_with_all_rows_kept_it_is_trainer(tmp_path, family):
    *theirs, _ = trained(family, plain_args(tmp_path, **SHORT), Trainer)
    for warmup in (0.0, 0.5):
        args = sage_args(
            tmp_path, **SHORT, sage_fraction=1.0, sage_warmup_epochs=warmup, sage_refresh_epochs=1, sage_sketch_size=4
        )
        *ours, trainer = trained(family, args, SageTrainer)
        assert len(trainer.selections) == (2 if warmup == 0.0 else 1)
        assert ours[1] == theirs[1]
        assert ours[0] == theirs[0]
        assert ours[2] == theirs[2]
