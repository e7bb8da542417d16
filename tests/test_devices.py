"""What yolite asks of the machine."""

from __future__ import annotations

import pytest
import torch

from yolite.devices import keep_memory


def _page_faults() -> int:
    """Return how many pages the system makes for a tensor of 64 MiB that is freed at once."""
    usage = pytest.importorskip("resource")
    before = usage.getrusage(usage.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return int(usage.getrusage(usage.RUSAGE_SELF).ru_minflt - before)


def test_freed_memory_is_taken_again() -> None:
    if not keep_memory():
        pytest.skip("not glibc")
    # small pieces get in the way at first; memory that was given back would be 16,384 pages each time
    assert any(_page_faults() < 100 for _ in range(30))
