"""Several processes, one pass: who takes which shards, and how what they find comes together.

A process takes a run of consecutive shards and merges them as far as the fixed tree allows on its own; then the
processes join their nodes pairwise, log2(processes) times, and the first one's result goes to all. Every merge is the
one that a single process would have made, so the result is the same to the bit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from ..errors import SageError
from .merge_tree import MergeTree, Partial
from .pulse import roll

_DTYPES = (torch.float32, torch.float64, torch.int64, torch.uint8)
_MOST_AXES = 4
# Rows that are sent at once when a column is gathered.
_GATHERED_ROWS = 2**16


def launched() -> PartialState:
    """accelerate's state of this process; `torchrun` without an accelerator gives it gloo, which it would not take."""
    is_launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    state = PartialState(cpu=True) if is_launched and not torch.accelerator.is_available() else PartialState()
    if state.num_processes > 1 and dist.is_initialized():
        roll()  # from now on, others see that this one lives
    return state


def end_together() -> None:
    """Waits for all at the end of a run, and takes their connection down; nothing where there is one process."""
    Processes(nn.Identity()).wait()
    launched().destroy_process_group()


def is_sharded(model: nn.Module) -> bool:
    """Whether the weights are spread over processes: FSDP (both versions), or DeepSpeed's ZeRO-3."""
    return any(
        isinstance(parameter, DTensor) or hasattr(parameter, "ds_id") or hasattr(parameter, "_is_flat_param")
        for parameter in model.parameters()
    )


def is_data_parallel(model: nn.Module) -> bool:
    """Whether FSDP2 spreads the weights over all processes and nothing else, so that each may take its own rows."""
    return isinstance(model, FSDPModule) and all(
        isinstance(parameter, DTensor)
        and parameter.device_mesh.ndim == 1
        and parameter.device_mesh.size() == dist.get_world_size()
        for parameter in model.parameters()
    )


class Processes:
    """The processes of an `accelerate launch` or `torchrun`; one, where there is no launch.

    Args:
        model: What the pass runs. Where its weights are spread over processes otherwise than by FSDP2 over all of them
            (tensor parallelism, ZeRO-3, the first FSDP), each takes all rows, as if it were the only one.

    Attributes:
        rank: This one's number, from 0.
        count: Number of processes.
        together: Whether every forward pass needs all of them, though each has rows of its own.
        stage: What they are at, for messages.
    """

    def __init__(self, model: nn.Module) -> None:
        state = launched()
        self.together = is_sharded(model) and is_data_parallel(model)
        shares = self.together or not is_sharded(model)
        self.rank: int = state.process_index if shares else 0
        self.count: int = state.num_processes if shares else 1
        is_gpu = self.count > 1 and "nccl" in str(dist.get_backend())
        self._device = state.device if is_gpu else torch.device("cpu")
        self.stage = ""

    def worked(self) -> None:
        """Tells the others, who may wait, that this one goes on; called once a batch."""
        if self.count > 1:
            roll().work()

    def array_from_main(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The main process's array (float32, float64, int64 or uint8), in every process, whatever the others gave."""
        if self.count == 1:
            return values
        with self._exchange():
            return np.asarray(self._broadcast(torch.from_numpy(np.ascontiguousarray(values))).cpu().numpy())

    def broadcast_object(self, values: Any) -> Any:
        """What the main process has to tell, as JSON can hold it, in every process."""
        text = np.frombuffer(json.dumps(values).encode(), dtype=np.uint8)
        return json.loads(self.array_from_main(text.copy()).tobytes())

    def tensors_from_main(self, tensors: Sequence[Tensor]) -> None:
        """Gives tensors, in place, the main process's values, to the bit; every process must have the same of them."""
        if self.count == 1:
            return
        with self._exchange(), torch.no_grad():
            for tensor in (each for each in tensors if each.numel()):
                sent = tensor.detach().to(self._device, copy=True).contiguous()
                dist.broadcast(sent.view(-1).view(torch.uint8), src=0)
                if self.rank != 0:
                    tensor.copy_(sent)

    def most(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.count == 1:
            return number
        numbers = torch.zeros(self.count, dtype=torch.int64, device=self._device)
        numbers[self.rank] = number
        with self._exchange():
            dist.all_reduce(numbers)
        return int(numbers.max())

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            with self._exchange():
                dist.barrier()

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Waits for all at the end of a block, and raises in each when it has failed in one.

        Raises:
            SageError: It failed in another process.
        """
        failure = None
        try:
            yield
        except Exception as error:
            failure = error
        self.raise_if_any_failed(failure)

    def raise_if_any_failed(self, error: Exception | None) -> None:
        """Waits for all, and raises in each when one has failed; otherwise the others would wait for it for ever.

        Raises:
            SageError: Another process failed.
        """
        if self.count > 1:
            failed = torch.zeros(self.count, dtype=torch.int64, device=self._device)
            failed[self.rank] = error is not None
            try:
                with self._exchange():
                    dist.all_reduce(failed)
            except SageError as lost:  # of two reasons, the own one says more
                raise (error or lost) from lost.__cause__
            if error is None and failed.any():
                numbers = failed.nonzero().flatten().tolist()
                raise SageError(
                    f"Process {', '.join(map(str, numbers))} of {self.count} failed",
                    where=f"process {self.rank}",
                    fix="See the message of that process.",
                )
        if error is not None:
            raise error

    def gather(self, column: npt.NDArray[np.generic], parts: Sequence[range]) -> None:
        """Fills in, in place, what the other processes found, a block of rows at a time.

        Args:
            column: [N] or [N, width], in memory or mapped from a file, of which this process has filled its part.
            parts: The rows of every process.
        """
        if self.count == 1:
            return
        blocks = (
            (owner, slice(start, min(start + _GATHERED_ROWS, part.stop)))
            for owner, part in enumerate(parts)
            for start in range(part.start, part.stop, _GATHERED_ROWS)
        )
        with self._exchange():
            for owner, block in blocks:
                values = torch.from_numpy(np.array(column[block])).to(self._device)
                dist.broadcast(values, src=owner)
                if owner != self.rank:
                    column[block] = values.cpu().numpy()

    def merge(self, tree: MergeTree, new_partial: Callable[[], Partial]) -> Partial:
        """The whole tree's result, in every process.

        Args:
            tree: Tree of this process's shards, which follow those of the process before.
            new_partial: Makes an empty partial result, to receive into.
        """
        self.join(tree, new_partial)
        return self.share(tree, new_partial)

    def join(self, tree: MergeTree, new_partial: Callable[[], Partial]) -> None:
        """Brings the nodes of all processes into the main one's tree, and takes them out of the others'."""
        if self.count == 1:
            return
        step = 1
        with self._exchange():
            while step < self.count:
                if self.rank % (2 * step) == step:
                    self._send_tree(tree, self.rank - step)
                    tree.nodes.clear()
                    break
                if self.rank + step < self.count:
                    self._receive_tree(tree, self.rank + step, new_partial)
                step *= 2

    def share(self, tree: MergeTree, new_partial: Callable[[], Partial]) -> Partial:
        """The result of the main process's tree, in every process."""
        if self.count == 1:
            return tree.result()
        result = tree.result() if self.rank == 0 else new_partial()
        state = result.state_dict()
        with self._exchange():
            for name in sorted(state):
                state[name] = self._broadcast(state[name])
        if self.rank != 0:
            result.load_state_dict(state)
        return result

    # ---------------------------------------------------------------- internals
    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Around what is exchanged, once all are there; of several processes."""
        everyone, where = roll(), ", ".join(filter(None, [self.stage, f"process {self.rank}"]))
        everyone.meet(where)
        with everyone.exchange(where):
            yield

    def _send_tree(self, tree: MergeTree, target: int) -> None:
        self._send(torch.tensor([[start, size] for start, size, _ in tree.nodes]).reshape(-1, 2), target)
        for _, _, node in tree.nodes:
            state = node.state_dict()
            for name in sorted(state):
                self._send(state[name], target)

    def _receive_tree(self, tree: MergeTree, source: int, new_partial: Callable[[], Partial]) -> None:
        for start, size in self._receive(source).tolist():
            node = new_partial()
            node.load_state_dict({name: self._receive(source) for name in sorted(node.state_dict())})
            tree.push(node, start, size)

    def _send(self, tensor: Tensor, target: int) -> None:
        dist.send(_header(tensor).to(self._device), target)
        if tensor.numel():
            dist.send(tensor.contiguous().to(self._device), target)

    def _receive(self, source: int) -> Tensor:
        header = torch.zeros(_MOST_AXES + 2, dtype=torch.int64, device=self._device)
        dist.recv(header, source)
        tensor = _like(header.tolist(), self._device)
        if tensor.numel():
            dist.recv(tensor, source)
        return tensor

    def _broadcast(self, tensor: Tensor) -> Tensor:
        header = _header(tensor).to(self._device)
        dist.broadcast(header, src=0)
        sent = tensor.contiguous().to(self._device) if self.rank == 0 else _like(header.tolist(), self._device)
        if sent.numel():
            dist.broadcast(sent, src=0)
        return sent


def _header(tensor: Tensor) -> Tensor:
    """Number of axes, their lengths, and the type."""
    padding = [0] * (_MOST_AXES - tensor.ndim)
    return torch.tensor([tensor.ndim, *tensor.shape, *padding, _DTYPES.index(tensor.dtype)])


def _like(header: list[int], device: torch.device) -> Tensor:
    return torch.empty(header[1 : 1 + header[0]], dtype=_DTYPES[header[-1]], device=device)
