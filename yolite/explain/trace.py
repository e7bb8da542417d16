"""One picture through one model: every layer's output, every candidate, who dropped whom.

The tensors and functions are those of `yolite.inference`: hooks on the layers of its graph keep what they answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolite.boxes import pairwise_iou
from yolite.codec import Decoded, decode, decode_likely, likely, probability, scores
from yolite.errors import UserError
from yolite.geometry import Image, Letterbox
from yolite.inference import Inference
from yolite.nms import hard_nms
from yolite.postprocess import Thresholds, passing
from yolite.structures import Detections, HeadSpec

BORDER = 1e-6
"""IoUs nearer than this to the threshold may round to either side of it in torchvision's kernel."""


@dataclass(frozen=True)
class Place:
    """One prediction: an anchor of a cell of a level, all counted from 0."""

    level: int
    anchor: int
    row: int
    column: int


@dataclass(frozen=True)
class Candidates:
    """The predictions of one image that score above the confidence, in the order in which NMS gets them.

    Attributes:
        places: N of them.
        boxes: [N, 4] xyxy, input px.
        scores: [N].
        labels: [N] int64.
        kept: [K] int64, what NMS keeps, best score first.
        by: [N] int64, the kept candidate that drops this one (the best of those that do), −1: none.
        overlap: [N] float64, their IoU.
        capped: Whether ``max_det`` cut the list.
    """

    places: list[Place]
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    kept: Tensor
    by: Tensor
    overlap: Tensor
    capped: bool

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class Trace:
    """All that happened to one picture.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        letterbox: How it became the input.
        pixels: [H, W, 3] uint8, the input.
        outputs: What each layer of the graph answered, [1, C, H, W], by its index.
        maps: The raw map [1, channels, H, W] of each level.
        decoded: The same in readable form.
        specs: How each is read.
        limits: Which boxes were let through.
        candidates: What was above the confidence.
        found: What was found: those of them that NMS keeps, image px.
    """

    image: Image
    letterbox: Letterbox
    pixels: Image
    outputs: dict[int, Tensor]
    maps: list[Tensor]
    decoded: list[Decoded]
    specs: Sequence[HeadSpec]
    limits: Thresholds
    candidates: Candidates
    found: Detections

    def objectness(self, level: int) -> Tensor:
        """Return the objectness [A, H, W] of every prediction of a level."""
        return probability(self.decoded[level].objectness[0], self.specs[level].objectness)

    def score_map(self, level: int) -> Tensor:
        """Return the best class's score [A, H, W] of every prediction of a level."""
        one = self.decoded[level]
        return scores(one.objectness[0], one.classes[0], self.specs[level]).amax(-1)

    def likeliest(self) -> Place:
        """Return the prediction that explains best what was found: the best box's; without any, the highest score's."""
        if len(self.candidates.kept):
            return self.candidates.places[int(self.candidates.kept[0])]
        maps = [self.score_map(level) for level in range(len(self.maps))]
        level = max(range(len(maps)), key=lambda n: float(maps[n].max()))
        return Place(level, *(int(i) for i in torch.unravel_index(maps[level].argmax(), maps[level].shape)))

    def place(self, numbers: Sequence[int]) -> Place:
        """Return the prediction that LEVEL, ROW, COLUMN and perhaps ANCHOR name; else the cell's best anchor.

        Raises:
            UserError: there is no such level, cell or anchor.
        """
        level, row, column = numbers[:3]
        if not 0 <= level < len(self.maps):
            raise UserError(f"--cell: there is no level {level}: this network has {_range('levels', len(self.maps))}")
        _, rows, columns = (anchors, *_) = self.decoded[level].objectness.shape[1:]
        where = f"level {level} (stride {self.specs[level].stride}) has"
        if not (0 <= row < rows and 0 <= column < columns):
            raise UserError(f"--cell: there is no cell {row},{column}: {where} {_range('rows', rows)} and "
                            f"{_range('columns', columns)}")  # fmt: skip
        if len(numbers) == 3:
            return Place(level, int(self.score_map(level)[:, row, column].argmax()), row, column)
        if not 0 <= numbers[3] < anchors:
            raise UserError(f"--cell: there is no box {numbers[3]} in a cell: {where} {_range('anchors', anchors)}")
        return Place(level, numbers[3], row, column)


def _range(what: str, count: int) -> str:
    return f"{what} 0 to {count - 1}"


def follow(inference: Inference, image: Image, limits: Thresholds) -> Trace:
    """Detect on a picture and keep everything on the way.

    Args:
        inference: The network at work, on the CPU.
        image: [H, W, 3] uint8 RGB.
        limits: As in detection; hard NMS.

    Raises:
        AssertionError: what is told of NMS is not what NMS did.
    """
    letterbox = inference.letterbox((image.shape[0], image.shape[1]))
    pixels = letterbox.pixels(image)
    outputs: dict[int, Tensor] = {}

    def keep(index: int, answer: Tensor) -> None:
        outputs[index] = answer

    layers = inference.detector.graph.layers
    hooks = [layer.register_forward_hook(lambda *args, i=i: keep(i, args[-1])) for i, layer in enumerate(layers)]
    try:
        maps = inference.forward(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    finally:
        for hook in hooks:
            hook.remove()
    found = inference.finish(maps, [letterbox], limits)[0]
    specs = inference.detector.specs
    decoded = [decode(raw, spec) for raw, spec in zip(maps, specs, strict=True)]
    candidates = read_candidates(maps, specs, limits)
    told = letterbox.invert(candidates.boxes[candidates.kept].float())
    assert torch.equal(told, found.boxes)
    assert torch.equal(candidates.scores[candidates.kept].float(), found.scores)
    return Trace(image, letterbox, pixels, outputs, maps, decoded, specs, limits, candidates, found)


def read_candidates(maps: Sequence[Tensor], specs: Sequence[HeadSpec], limits: Thresholds) -> Candidates:
    """Return the candidates of one image from its raw maps [1, channels, H, W], as `postprocess` goes through them."""
    levels = [decode_likely(raw[0], spec, limits.conf) for raw, spec in zip(maps, specs, strict=True)]
    boxes, values = (torch.cat(parts) for parts in zip(*levels, strict=True))
    everywhere = [
        Place(level, *place)
        for level, (raw, spec) in enumerate(zip(maps, specs, strict=True))
        for place in torch.stack(likely(raw[0], spec, limits.conf), 1).tolist()
    ]
    row, score, label = passing(boxes, values, limits)
    boxes, places = boxes[row], [everywhere[i] for i in row.tolist()]
    kept, capped = hard_nms(boxes, score, label, limits.iou, limits.max_det, limits.nms == "hard")
    by, overlap = droppers(boxes, score, label, kept, limits, capped)
    return Candidates(places, boxes, score, label, kept, by, overlap, capped)


def droppers(
    boxes: Tensor, score: Tensor, label: Tensor, kept: Tensor, limits: Thresholds, capped: bool = False
) -> tuple[Tensor, Tensor]:
    """Say which kept box drops which candidate, from the result of NMS alone (torchvision's kernel does not tell).

    A candidate goes because a kept one with a better score (of equal scores: the first), of its class where NMS goes by
    class, overlaps it by more than the threshold.

    Args:
        boxes: [N, 4].
        score: [N].
        label: [N].
        kept: [K] what was kept, best first.
        limits: The thresholds.
        capped: Whether ``max_det`` cut the kept ones, so that some candidates went because of one that is not told of.

    Returns:
        The index in ``boxes`` of the best of those that drop it [N] (−1: it is kept, or cut off), and their IoU [N].

    Raises:
        AssertionError: a kept box would have been dropped, or a dropped one kept: the explanation is not what happened.
    """
    rank = torch.empty(len(boxes), dtype=torch.int64)
    rank[torch.sort(score, descending=True, stable=True).indices] = torch.arange(len(boxes))
    iou = pairwise_iou(boxes.double(), boxes[kept].double())
    before = rank[kept][None] < rank[:, None]
    drops = (iou > limits.iou) & before & ((label[:, None] == label[kept][None]) | (limits.nms == "agnostic"))
    dropped = drops.any(1)
    stays = torch.zeros(len(boxes), dtype=torch.bool)
    stays[kept] = True
    doubtful = ((iou - limits.iou).abs() < BORDER).any(1)
    assert bool((~dropped | ~stays | doubtful).all())
    assert capped or bool((dropped | stays | doubtful).all())
    if not len(kept):
        return torch.full((len(boxes),), -1), torch.zeros(len(boxes), dtype=torch.float64)
    first = drops.int().argmax(1)  # kept ones stand in the order of their scores
    told = dropped & ~stays
    by = torch.where(told, kept[first], -1)
    return by, torch.where(told, iou[torch.arange(len(boxes)), first], 0.0)
