"""What a trained network costs: its parameters, the fused forward pass, and how many pictures a second predict does.

    PYTHON benchmarks/speed.py TOOL WEIGHTS FOLDER SIZE THREADS [rates|forward]

TOOL is yolite, yolite-half (--half) or ultralytics, PYTHON that of its environment. It prints one line of JSON;
train_vs_peer.py and speed_accuracy.py call it for each row. The same code times both. The forward pass: one random
picture of 320x320 and of 640x640 px, float32 for all, channels_last, batch norm fused, boxes decoded, no NMS. Predict:
the Python API from the files of FOLDER to boxes at SIZE px, as benchmarks/detect.py has it, each tool as it is by
default (both pad a picture to the next 32 px). With ``rates`` predict alone is measured;
with ``forward`` the forward pass alone, and WEIGHTS may be the name of a model, which is built with 3 classes and
random weights (latency.py).
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZES, BATCHES, CLASSES = (320, 640), (1, 16), 3


def median_ms(call: Callable[[], object], runs: int = 30, warm_up: int = 5) -> float:
    """Return the median milliseconds of ``call()``, after some that are not counted."""
    times = []
    for _ in range(warm_up + runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[warm_up:]) * 1000


def readable(tool: str, weights: str) -> tuple[Callable[[Any], Any], int]:
    """Return a network that answers with decoded boxes, fused, and the parameters that it had before.

    Fusing also drops what a network has for its training alone (yolo26n: a second head).
    """
    import torch

    network: torch.nn.Module
    if tool != "ultralytics":
        from yolite.build import build_detector, placeholder_anchors
        from yolite.checkpoint import find_weights, load_checkpoint, restore_detector
        from yolite.export.graph import Readable
        from yolite.models.detector import fused
        from yolite.settings import load_config

        if Path(weights).exists():
            detector = restore_detector(load_checkpoint(find_weights(weights)))
        else:
            config = load_config(weights)
            detector = build_detector(config, CLASSES, placeholder_anchors(config.model))
        network, count = Readable(fused(detector)), parameters(detector)
    else:
        from ultralytics import YOLO

        theirs = YOLO(weights if Path(weights).exists() else f"{weights}.yaml").model.float()
        if not Path(weights).exists():
            theirs = type(theirs)(f"{weights}.yaml", nc=CLASSES, verbose=False)
        count = parameters(theirs)
        theirs.fuse(verbose=False)
        network = theirs
    return network.eval().to(memory_format=torch.channels_last), count


def parameters(network: Any) -> int:
    """Return the number of learnt numbers."""
    return sum(p.numel() for p in network.parameters())


def forward_ms(network: Callable[[Any], Any], size: int) -> float:
    """Return the median ms of one picture."""
    import torch

    picture = torch.rand(1, 3, size, size).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        return round(median_ms(lambda: network(picture)), 2)


def predict_rate(tool: str, weights: str, pictures: list[str], batch: int, size: int) -> float:
    """Return images a second, warm."""
    from detect import ours, theirs

    if tool == "ultralytics":
        row = theirs(weights, pictures, batch, True, size)
    else:
        row = ours(weights, pictures, batch, size, tool == "yolite-half")
    return round(len(pictures) / row["seconds"], 1)


def main() -> None:
    """Measure one network in this process."""
    tool, weights, folder, size, threads, *only = sys.argv[1:]
    import torch

    torch.set_num_threads(int(threads))
    row: dict[str, Any] = {}
    if only != ["rates"]:
        network, row["parameters"] = readable(tool, weights)
        row["fused_parameters"] = parameters(network)
        row["forward_ms"] = {str(side): forward_ms(network, side) for side in SIZES}
    if only != ["forward"]:
        pictures = sorted(str(path) for path in Path(folder).iterdir())
        rates = {str(batch): predict_rate(tool, weights, pictures, batch, int(size)) for batch in BATCHES}
        row["images_per_second"] = rates
    print(json.dumps(row))


if __name__ == "__main__":
    main()
