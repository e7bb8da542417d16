"""The whole postprocess of one picture: raw maps to boxes in image px. Called by primitives.py.

    PYTHON benchmarks/primitive_postprocess.py MAPS.pt TOOL CONF

MAPS.pt are made raw maps with 80 classes, as a trained network answers them: objects with a cluster of overlapping
boxes each, and background. TOOL is yolite, torchvision or ultralytics; PYTHON is that of its environment, which imports
of yolite what needs torch alone. It prints one line of JSON with the boxes that were left.

yolite decodes what may pass the threshold. torchvision and ultralytics get the decoded boxes of the whole map, as a
network with a decoding head gives them (by `yolite.codec`; the seconds of that are a part of their own, ``decode_ms``),
and do the rest by `batched_nms`, and by the peer's public `non_max_suppression` (its time limit put off) and
`scale_boxes`. At 0.25 a box has its best class, at 0.001 every class above it, as for detection and for the metric.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from speed import median_ms

from yolite.codec import decode, scores
from yolite.structures import HeadSpec

CLASSES, MOST, RUNS = 80, 300, 5
INPUT = {"1k": 128, "10k": 416, "100k": 1280}
"""Input px at which strides 8, 16 and 32 with three anchors give that many predictions."""
IOU = {0.25: 0.5, 0.001: 0.65}
IMAGE = (480, 640)
ANCHORS = (((12, 16), (19, 36), (40, 28)), ((36, 75), (76, 55), (72, 146)), ((142, 110), (192, 243), (459, 401)))
SPECS = [
    HeadSpec(8 * 2**level, anchors, CLASSES, grid_scale=2.0, wh="sigmoid_square")
    for level, anchors in enumerate(ANCHORS)
]


def made(size: int, seed: int = 0) -> list[Tensor]:
    """Return raw maps of a square input of ``size`` px: about one object for 100 predictions."""
    g = torch.Generator().manual_seed(seed)
    objects = 3 * sum((size // spec.stride) ** 2 for spec in SPECS) // 100
    centre = torch.rand(objects, 2, generator=g) * size
    label = torch.randint(CLASSES, (objects,), generator=g)
    maps = []
    for spec in SPECS:
        side = size // spec.stride
        raw = torch.randn(3, 5 + CLASSES, side, side, generator=g)
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        cell = (torch.stack((x, y), -1).reshape(-1, 2) + 0.5) * spec.stride
        distance, nearest = (cell[:, None] - centre).norm(dim=-1).min(1)
        near = torch.exp(-((distance / (1.5 * spec.stride)) ** 2)).reshape(side, side)
        raw[:, :4] *= 0.3
        raw[:, 4] += 9 * near - 7
        raw[:, 5:] -= 8
        at = label[nearest].reshape(1, 1, side, side).expand(3, 1, side, side)
        raw[:, 5:].scatter_add_(1, at, (10 * near).expand(3, 1, side, side))
        maps.append(raw.reshape(1, -1, side, side))
    return maps


def whole(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Decode every prediction: boxes [N, 4] xyxy in input px, and scores [N, classes]."""
    found = [(decode(raw, spec), spec) for raw, spec in zip(maps, SPECS, strict=True)]
    boxes = torch.cat([d.boxes.reshape(-1, 4) for d, _ in found])
    return boxes, torch.cat([scores(d.objectness, d.classes, spec).reshape(-1, CLASSES) for d, spec in found])


def yolite(size: int, conf: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return what decodes (nothing: the postprocess does) and the postprocess of yolite."""
    from yolite.geometry import Letterbox
    from yolite.postprocess import Thresholds, postprocess
    from yolite.structures import Preprocess

    box = Letterbox.fit(IMAGE, Preprocess((size, size)))
    limits = Thresholds(conf, IOU[conf], MOST, best_class=conf == 0.25)

    def rest(maps: Sequence[Tensor]) -> Tensor:
        found = postprocess(maps, SPECS, [box], limits)[0]
        return torch.cat((found.boxes, found.scores[:, None], found.labels[:, None]), 1)

    return lambda maps: maps, rest


def torchvision(size: int, conf: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return the decoding of a whole map, and plain torch with torchvision's NMS."""
    from torchvision.ops import batched_nms

    from yolite.geometry import Letterbox
    from yolite.structures import Preprocess

    box = Letterbox.fit(IMAGE, Preprocess((size, size)))

    def rest(decoded: tuple[Tensor, Tensor]) -> Tensor:
        boxes, values = decoded
        if conf == 0.25:
            score, label = values.max(1)
            row = (score > conf).nonzero()[:, 0]
            score, label = score[row], label[row]
        else:
            row, label = (values > conf).nonzero(as_tuple=True)
            score = values[row, label]
        kept = batched_nms(boxes[row], score, label, IOU[conf])[:MOST]
        return torch.cat((box.invert(boxes[row][kept]), score[kept, None], label[kept, None]), 1)

    return whole, rest


def ultralytics(size: int, conf: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return the decoding of a whole map into the peer's form [1, 4 + classes, N], and the peer's own functions."""
    from ultralytics.utils.nms import non_max_suppression
    from ultralytics.utils.ops import scale_boxes

    from yolite.boxes import xyxy_to_cxcywh

    def form(maps: Sequence[Tensor]) -> Tensor:
        boxes, values = whole(maps)
        return torch.cat((xyxy_to_cxcywh(boxes), values), 1).T[None].contiguous()

    def rest(prediction: Tensor) -> Tensor:
        found: Tensor = non_max_suppression(
            prediction, conf, IOU[conf], multi_label=conf != 0.25, max_det=MOST, nc=CLASSES, max_time_img=100.0
        )[0].clone()
        found[:, :4] = scale_boxes((size, size), found[:, :4], IMAGE)
        return found

    return form, rest


TOOLS = {"yolite": yolite, "torchvision": torchvision, "ultralytics": ultralytics}


def main() -> None:
    """Time one tool on one file of maps."""
    maps, conf = torch.load(sys.argv[1], weights_only=True), float(sys.argv[3])
    first, rest = TOOLS[sys.argv[2]](maps[0].shape[2] * SPECS[0].stride, conf)
    with torch.inference_mode():
        decoded = first(maps)
        # the peer writes into the prediction it is given: each call has a copy, which is not counted
        copies = decoded.clone() if isinstance(decoded, Tensor) else None
        row = {
            "decode_ms": median_ms(lambda: first(maps), RUNS, 1) if sys.argv[2] != "yolite" else 0.0,
            "ms": median_ms(lambda: rest(decoded if copies is None else copies.clone()), RUNS, 1),
            "copy_ms": median_ms(copies.clone, RUNS, 1) if copies is not None else 0.0,
            "found": rest(decoded if copies is None else copies.clone()).tolist(),
        }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
