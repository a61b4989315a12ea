"""Warnings that are of a model and its data, and so are given once however often these are opened."""

from __future__ import annotations

import logging
from weakref import WeakKeyDictionary

import torch
from torch import nn

_GIVEN: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


def warn_once(logger: logging.Logger, model: nn.Module, message: str) -> None:
    """Logs a warning, on the main process, if it was not logged for this model before."""
    given = _GIVEN.setdefault(model, set())
    if message not in given and not (torch.distributed.is_initialized() and torch.distributed.get_rank()):
        logger.warning(message)
    given.add(message)
