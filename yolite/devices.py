"""Which device computes, and in which precision."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

import torch

from yolite.errors import UserError
from yolite.processes import ALONE, Processes


def build_device(name: str, processes: Processes = ALONE) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` names; of several processes each takes its own.

    Raises:
        UserError: no such device here, or one GPU for several processes.
    """
    if name.startswith("cuda:") and processes.world > 1:
        raise UserError(f"device {name!r} names one GPU for {processes.world} processes: give --device cuda")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()) or (kind == "cpu" and number):
        raise UserError(f"device {name!r} is not known: give auto, cpu, cuda or cuda:N")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= int(number or 0):
            there = f"{count} CUDA device(s)" if count else "no CUDA device"
            raise UserError(f"device {name!r} was asked for, but this machine has {there}: use --device cpu")
    return torch.device(name)


def choose_precision(device: torch.device) -> tuple[str, str]:
    """Decide ``precision: auto``; return (precision, reason)."""
    if device.type == "cuda":
        # torch calls bf16 supported where it is emulated, too; the instructions came with compute capability 8
        has_bf16 = torch.cuda.get_device_capability(device)[0] >= 8
        return ("bf16", "the GPU has bf16") if has_bf16 else ("fp16", "the GPU has no bf16")
    # oneDNN's own test is not public; these are the instructions it runs bf16 convolutions on.
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        flags = ""
    for flag in ("amx_bf16", "avx512_bf16"):
        if flag in flags:
            return "bf16", f"the processor has {flag}"
    return "fp32", f"no bf16 instructions are known on this processor ({platform.machine()})"


HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The precisions of 16 bits, by name."""


def half_type(device: torch.device) -> torch.dtype:
    """Return the 16-bit type that a device computes in.

    Raises:
        UserError: it has none that is faster than float32.
    """
    precision, reason = choose_precision(device)
    if precision == "fp32":
        raise UserError(f"half precision would be slower here, {reason}: leave it out")
    return HALF[precision]


def keep_memory() -> bool:
    """Have glibc keep freed memory for the next tensor instead of handing it back; return whether it was told.

    Every step of training on a CPU frees and takes hundreds of MiB. By itself glibc gives large pieces back to the
    system, which then has to make the same pages anew: a page fault for every 4 KiB, 10,000 to 20,000 in a step. Up to
    2 GiB of free memory stay with the process; pieces above 1 GiB are still given back.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    trim, mmap = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    return bool(mallopt(trim, 2**31 - 1)) and bool(mallopt(mmap, 2**30))
