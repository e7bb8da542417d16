"""Anchors by k-means, beside scikit-learn's. Called by primitives.py.

    python benchmarks/primitive_anchors.py TOOL BOXES

TOOL is yolite (`yolite.anchors`, k-means under 1 − IoU with its defaults: medians, 10 restarts, at most 100 rounds) or
scikit-learn (Euclidean KMeans on width and height, as many restarts and rounds). BOXES is a COCO json, read as
``yolite anchors --imgsz 416`` reads it, or ``made``: a million shapes, drawn from three log-normal clouds. It prints
one line of JSON: seconds of the clustering alone, and the average IoU of the boxes with their best anchor.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from torch import Tensor

from yolite.anchors import fit_report, kmeans_anchors
from yolite.console import Console
from yolite.data.pictures import Pictures
from yolite.reading import build_dataset, load_split
from yolite.settings import load_config
from yolite.structures import Preprocess
from yolite.training.prepare import box_shapes

K, RESTARTS, ROUNDS, SIZE, MADE = 9, 10, 100, 416, 1_000_000


def made(count: int = MADE, seed: int = 0) -> Tensor:
    """Return [count, 2] shapes in px: small, middle and large objects, a third each."""
    g = torch.Generator().manual_seed(seed)
    middle = torch.tensor([[3.0, 3.2], [4.2, 4.0], [5.2, 5.4]])
    cloud = torch.randint(3, (count,), generator=g)
    spread = torch.tensor([0.5, 0.6, 0.7])[cloud, None]
    return torch.exp(middle[cloud] + spread * torch.randn(count, 2, generator=g)).clamp(2, 640)


def shapes(boxes: str) -> Tensor:
    """Return the shapes [N, 2] that are clustered."""
    if boxes == "made":
        return made()
    console = Console()
    config = load_config(None, None, {"data": {"source": boxes}}, [])
    split = load_split(build_dataset(config, console), "train", console, need_images=False)
    return box_shapes(Pictures(split.samples, Preprocess((SIZE, SIZE))))


def main() -> None:
    """Cluster once."""
    wh = shapes(sys.argv[2])
    if sys.argv[1] == "yolite":
        start = time.perf_counter()
        report = kmeans_anchors(wh, K, restarts=RESTARTS, iterations=ROUNDS)
    else:
        from sklearn.cluster import KMeans

        start = time.perf_counter()
        found = KMeans(K, n_init=RESTARTS, max_iter=ROUNDS, random_state=0).fit(wh.numpy())
        report = fit_report(wh, torch.from_numpy(found.cluster_centers_))
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "count": report.boxes, "avg_iou": round(report.avg_iou, 4)}))


if __name__ == "__main__":
    main()
