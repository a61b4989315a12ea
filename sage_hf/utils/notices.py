"""Warnings that are of a model and its data, and so are given once however often these are opened."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

# Of a warning that only one of several processes has: the shell shows others of the main process alone.
OF_THIS_PROCESS = {"of_this_process": True}
_GIVEN: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()
_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silent() -> Iterator[None]:
    """Gives no such warning inside: for the many models of a comparison, of which the first has been warned of."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


def warn_once(logger: logging.Logger, model: nn.Module, message: str) -> None:
    """Logs a warning, on the main process, if it was not logged for this model before."""
    if _SILENT.get():
        return
    warned = _GIVEN.setdefault(model, set())
    if message not in warned and not (torch.distributed.is_initialized() and torch.distributed.get_rank()):
        logger.warning(message)
    warned.add(message)
