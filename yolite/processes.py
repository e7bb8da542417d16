"""One process or many: the little that training, evaluation and detection need to know of torchrun.

``torchrun --nproc-per-node N tools/train.py …`` starts the same program N times and tells each, in environment
variables, which one it is. Every process works on its share; rank 0 alone prints and writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")
PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: rank 0 may be writing pictures or judging a large data set."""


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


@dataclass(frozen=True)
class Processes:
    """Which process of how many this is; alone, every method is a plain pass-through.

    Attributes:
        rank: Number of this process; 0 prints and writes.
        world: Number of processes.
        local_rank, local_world: The same on this host; ``local_rank`` names the GPU.
        restarts: How often torchrun has started this process again.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    restarts: int = 0

    @property
    def main(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's part of ``items``: every world-th one."""
        return items[self.rank :: self.world]

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add up ``values`` over all processes, number by number; every process gets the sums."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        out: list[float] = total.tolist()
        return out

    def from_main(self, value: T) -> T:
        """Return rank 0's value on every process."""
        if self.world == 1:
            return value
        box: list[Any] = [value]
        distributed.broadcast_object_list(box, src=0)
        out: T = box[0]
        return out

    def copy_from_main(self, tensors: Sequence[torch.Tensor]) -> None:
        """Overwrite tensors with rank 0's, in place."""
        if self.world > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def gather(self, value: T) -> list[T]:
        """Return every process's value, in the order of the ranks, on every process."""
        if self.world == 1:
            return [value]
        out: list[Any] = [None] * self.world
        distributed.all_gather_object(out, value)
        return out

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """Let one process of each host go through the block before the others (it makes files they find made)."""
        if self.world > 1 and self.local_rank > 0:
            distributed.barrier()
        yield
        if self.world > 1 and self.local_rank == 0:
            distributed.barrier()


ALONE = Processes()
"""The one process of a program that torchrun did not start."""


_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container reads how much memory it may take (cgroup 2, cgroup 1)."""


def memory_size() -> int:
    """Return the bytes of RAM of this machine, or of the container that this runs in."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in map(Path, _MEMORY_LIMITS):
        with suppress(OSError, ValueError):  # no such file, or "max"
            sizes.append(int(limit.read_text()))
    return min(sizes)


def join() -> Processes:
    """Find out which process this is and meet the others (gradients go by nccl between GPUs, else by gloo)."""
    world = _number("WORLD_SIZE", 1)
    restarts = _number("TORCHELASTIC_RESTART_COUNT", 0)
    if world == 1:
        return Processes(restarts=restarts)
    me = Processes(_number("RANK", 0), world, _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", world), restarts)
    if not distributed.is_initialized():
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(me.local_rank % torch.cuda.device_count())
        # After a restart torchrun may keep its store (with a fixed --master-port): without a prefix of its own the
        # new group would find the addresses of processes that are dead.
        store, rank, size = next(iter(rendezvous("env://", timeout=PATIENCE)))
        store = distributed.PrefixStore(f"restart-{restarts}", store)
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    return me


def leave(processes: Processes) -> None:
    """Part from the other processes."""
    if processes.world > 1 and distributed.is_initialized():
        distributed.destroy_process_group()
