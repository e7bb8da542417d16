"""One backend at work on pictures, timed step by step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolite.data.images import read_image
from yolite.defaults import CONF, IOU, MAX_DET
from yolite.inference import Inference, TorchNetwork
from yolite.postprocess import Thresholds
from yolite.structures import Size
from yolite.weights import open_model

STEPS = ("decode", "preprocess", "forward", "postprocess")
WARM_UP = 5
LEAST = 20
"""Each backend is measured on at least so many pictures."""


@dataclass(frozen=True)
class Job:
    """What is measured.

    Attributes:
        weights: A checkpoint or an exported file.
        variant: Of a checkpoint: ``fp32``, ``fp32 channels_last`` (as detection computes) or ``half``.
        device: Where to run.
        size: (H, W) of the input.
        pictures: Files, read in turn.
        threads: Of every runtime.
        seconds: For how long at least.
    """

    weights: str
    variant: str
    device: str
    size: Size
    pictures: list[str]
    threads: int
    seconds: float = 5.0


class _Contiguous(TorchNetwork):
    """PyTorch's network in the memory format that detection does not use."""

    def __init__(self, network: TorchNetwork) -> None:
        self.detector, self.device = network.detector.to(memory_format=torch.contiguous_format), network.device

    def __call__(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.detector(images)
        return maps


def _peak_mib(device: torch.device) -> float:
    """Return the most memory this process has held, MiB; on a GPU, of its memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # Linux: its ru_maxrss counts in the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    import resource  # POSIX alone has it

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _rounds(inference: Inference, pictures: list[str]) -> Iterator[dict[str, float]]:
    """Yield the seconds of each step, and the px of the input, picture by picture, for ever."""
    limits = Thresholds(CONF, IOU, MAX_DET, best_class=True)
    while True:
        for path in pictures:
            before = dict(inference.seconds)
            start = time.perf_counter()
            image = read_image(Path(path))
            decoded = time.perf_counter()
            letterbox = inference.letterbox((image.shape[0], image.shape[1]))
            pixels = torch.from_numpy(letterbox.pixels(image)).permute(2, 0, 1)[None]
            ready = time.perf_counter()
            inference(pixels, [letterbox], limits)
            spent = {step: inference.seconds[step] - before[step] for step in before}
            spent["preprocess"] += ready - decoded
            px = letterbox.input[0] * letterbox.input[1]
            yield {"decode": decoded - start, **spent, "all": time.perf_counter() - start, "px": px}


def measure(job: Job) -> dict[str, Any]:
    """Measure one backend in this process.

    Returns:
        p50_ms and p95_ms from the file to the boxes, forward_p50_ms, images_per_second, the share of each step,
        px_per_second of the forward pass (median), peak_mib, and on how many pictures.
    """
    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    model = open_model(job.weights, device, job.size, half=job.variant == "half")
    network = model.network
    if isinstance(network, TorchNetwork) and job.variant == "fp32":
        network = _Contiguous(network)
    rounds = _rounds(Inference(network, model.preprocess), job.pictures)
    for _ in range(max(WARM_UP, len(job.pictures))):  # every size once: runtimes prepare for each
        next(rounds)
    rows: list[dict[str, float]] = []
    begun = time.perf_counter()
    while len(rows) < LEAST or time.perf_counter() - begun < job.seconds:
        rows.append(next(rounds))
    whole, forward = (np.array([row[name] for row in rows]) * 1000 for name in ("all", "forward"))
    total = {step: sum(row[step] for row in rows) for step in STEPS}
    return {
        "p50_ms": float(np.percentile(whole, 50)), "p95_ms": float(np.percentile(whole, 95)),
        "forward_p50_ms": float(np.percentile(forward, 50)), "images_per_second": 1000 / float(whole.mean()),
        "share": {step: total[step] / sum(total.values()) for step in STEPS}, "peak_mib": _peak_mib(device),
        "px_per_second": float(np.median([row["px"] / row["forward"] for row in rows])), "pictures": len(rows),
    }  # fmt: skip
