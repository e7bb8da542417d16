"""Where every random draw comes from: (seed, purpose, epoch or step, index), never a global state.

So neither the number of loader processes nor a resume changes a run.
"""

from __future__ import annotations

import random

import numpy as np
import torch


def generator(seed: int, *where: int) -> np.random.Generator:
    """Return NumPy's generator for one place of the run, for instance ``(seed, epoch, index)``."""
    return np.random.default_rng(np.random.SeedSequence([seed, *where]))


def derived(seed: int, *where: int) -> int:
    """Return a 31-bit seed for one place of the run, for libraries that want a number."""
    return int(np.random.SeedSequence([seed, *where]).generate_state(1)[0] >> 1)


def seed_libraries(seed: int, *where: int) -> None:
    """Set the global generators of Python, NumPy and torch for one place of the run.

    Nothing in yolite draws from them; done before every step, it makes whatever else does (a dropout layer, say)
    repeat after a resume too.
    """
    number = derived(seed, *where)
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 - the global generator is the point
    torch.manual_seed(number)
