"""Models of time series."""

from functools import partial

import torch

from .batches import CLASSES, ROWS, classes
from .family import Family, config_of

TIME, CHANNELS = 16, 2


def _past(extra=0):
    return {
        "past_values": torch.randn(ROWS, TIME + extra, CHANNELS),
        "past_observed_mask": (torch.arange(TIME + extra).unsqueeze(-1) >= torch.tensor([0, 2])).expand(ROWS, -1, -1),
    }


def forecast(side="right"):
    return {"past_values": torch.randn(ROWS, TIME, CHANNELS), "future_values": torch.randn(ROWS, 4, CHANNELS)}


def observed(side="right"):
    batch = forecast()
    mask = torch.ones(ROWS, TIME, CHANNELS)
    mask[1, :5] = 0
    mask[3, :9, 1] = 0
    return {**batch, "past_observed_mask": mask.bool()}


def classify(side="right"):
    return {"past_values": torch.randn(ROWS, TIME, CHANNELS), "target_values": classes()}


def regress(side="right"):
    return {"past_values": torch.randn(ROWS, TIME, CHANNELS), "target_values": torch.randn(ROWS, 2)}


def reconstruct(side="right"):
    return {"past_values": torch.randn(ROWS, TIME, CHANNELS)}


def with_lags(side="right"):
    """Past values reach further back than the context, by the longest lag; some are not observed."""
    torch.manual_seed(4)
    mask = torch.ones(ROWS, TIME + 2)
    mask[1, :7] = 0
    return {
        "past_values": torch.rand(ROWS, TIME + 2),
        "past_time_features": torch.rand(ROWS, TIME + 2, 1),
        "past_observed_mask": mask,
        "future_values": torch.rand(ROWS, 4),
        "future_time_features": torch.rand(ROWS, 4, 1),
    }


def freely(side="right"):
    return {
        "past_values": torch.randn(ROWS, 16),
        "freq": torch.tensor([0, 1, 2, 0]),
        "future_values": torch.randn(ROWS, 8),
    }


def families():
    patch = {
        "num_input_channels": CHANNELS,
        "context_length": TIME,
        "patch_length": 4,
        "patch_stride": 4,
        "ffn_dim": 16,
    }
    mixer = {
        "num_input_channels": CHANNELS,
        "context_length": TIME,
        "patch_length": 4,
        "patch_stride": 4,
        "d_model": 8,
    }
    lags = {"prediction_length": 4, "context_length": TIME, "lags_sequence": [1, 2], "num_time_features": 1}
    probabilistic = {"loss": "nll", "distribution_output": "student_t"}
    free = {"patch_length": 4, "context_length": 16, "horizon_length": 8}

    def make(name, **changes):
        return partial(config_of, name, **changes)

    def one(name, batch, variant="", **changes):
        return Family(name, "series", make(name, **changes), batch, variant)

    return [
        one("PatchTSTForPrediction", observed, prediction_length=4, **patch),
        one("PatchTSTForPrediction", observed, "nll", prediction_length=4, **patch, **probabilistic),
        one("PatchTSTForClassification", classify, num_targets=CLASSES, **patch),
        one("PatchTSTForRegression", regress, num_targets=2, **patch),
        one("PatchTSTForPretraining", reconstruct, do_mask_input=True, **patch),
        one("PatchTSMixerForPrediction", observed, prediction_length=4, **mixer),
        one("PatchTSMixerForPrediction", observed, "nll", prediction_length=4, **mixer, **probabilistic),
        one("PatchTSMixerForTimeSeriesClassification", classify, num_targets=CLASSES, **mixer),
        one("PatchTSMixerForRegression", regress, num_targets=2, **mixer),
        one("PatchTSMixerForPretraining", reconstruct, **mixer),
        one("TimesFmModelForPrediction", freely, **free),
        one("TimeSeriesTransformerForPrediction", with_lags, **lags),
        one("InformerForPrediction", with_lags, **lags),
        one("AutoformerForPrediction", with_lags, **lags, label_length=4, moving_average=3),
    ]
