"""What an exported file computes: the network and the codec's own decoding, traced once for every format.

Inputs and outputs have the same names in all formats:

* ``images`` [B, 3, H, W] float32, normalised by the stored `Preprocess`; H and W are multiples of the coarsest stride.
* ``raw_0``, ``raw_1`` …, one a level, finest first: [B, channels, H / stride, W / stride], as the network answers.
  yolite's own Predictor reads these, so that decoding, NMS and all their options are the same code as ever.
* ``boxes`` [B, N, 4] xyxy in input px and ``scores`` [B, N, classes], for other programs: threshold, NMS and the
  inverse of the letterbox are theirs.
* With NMS in the graph instead ``boxes`` [K, 4], ``scores`` [K], ``labels`` [K] and ``picture`` [K] (the place in the
  batch): picture by picture, best first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from yolite.codec import decode, scores
from yolite.errors import UserError
from yolite.export.extras import quiet
from yolite.models.detector import Detector
from yolite.nms import hard_nms
from yolite.structures import HeadSpec, Size


@dataclass(frozen=True)
class InGraph:
    """The thresholds of NMS in the graph; each box has its best class, NMS is class-wise.

    Attributes:
        conf: Least score.
        iou: NMS threshold.
        max_det: Most boxes a picture.
    """

    conf: float
    iou: float
    max_det: int


@torch.library.custom_op("yolite::nms", mutates_args=())
def nms(boxes: Tensor, values: Tensor, iou: float, conf: float) -> Tensor:
    """Class-wise NMS of a batch, in the form of ONNX's NonMaxSuppression, into which an export translates it.

    Args:
        boxes: [B, N, 4] xyxy.
        values: [B, classes, N] scores.
        iou: A pair that overlaps by more loses its weaker box.
        conf: A score must be above it.

    Returns:
        [K, 3] int64: picture, class and row of every box that is kept.
    """
    kept = []
    for picture, (box, value) in enumerate(zip(boxes, values, strict=True)):
        label, row = (value > conf).nonzero(as_tuple=True)
        stay, _ = hard_nms(box[row], value[label, row], label, iou, max(1, len(row)))
        kept.append(torch.stack((torch.full_like(stay, picture), label[stay], row[stay]), 1))
    return torch.cat(kept)


@nms.register_fake
def _shape_of_nms(boxes: Tensor, values: Tensor, iou: float, conf: float) -> Tensor:
    """Say that the number of boxes is not known before they are computed."""
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(), 3), dtype=torch.int64)


def decoded(maps: Sequence[Tensor], specs: Sequence[HeadSpec]) -> tuple[Tensor, Tensor]:
    """Return the boxes [B, N, 4], xyxy in input px, and the scores [B, N, classes] of all predictions of all levels."""
    boxes, values = [], []
    for raw, spec in zip(maps, specs, strict=True):
        level = decode(raw, spec)
        boxes.append(level.boxes.flatten(1, 3))
        values.append(scores(level.objectness, level.classes, spec).flatten(1, 3))
    return torch.cat(boxes, 1), torch.cat(values, 1)


def suppressed(boxes: Tensor, values: Tensor, limits: InGraph) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Threshold and NMS for a whole batch, in operations that a graph can hold; see the module for the outputs."""
    best = values.argmax(-1, keepdim=True) == torch.arange(values.shape[-1], device=values.device)
    finite = torch.isfinite(boxes).all(-1, keepdim=True)
    values = torch.where(best & finite, values, 0.0).transpose(1, 2)
    picture, label, row = nms(boxes, values, limits.iou, limits.conf).unbind(1)
    score, order = torch.sort(values[picture, label, row], descending=True, stable=True)
    picture, by_picture = torch.sort(picture[order], stable=True)
    order = order[by_picture]
    counts = (picture[None] == torch.arange(boxes.shape[0], device=boxes.device)[:, None]).sum(1)
    rank = torch.arange(picture.shape[0], device=boxes.device) - (counts.cumsum(0) - counts)[picture]
    keep = rank < limits.max_det
    order, picture, score = order[keep], picture[keep], score[by_picture][keep]
    return boxes[picture, row[order]], score, label[order], picture


class Readable(nn.Module):
    """A detector whose answers can be read without yolite.

    Args:
        detector: Fused, in eval mode.
        limits: Thresholds of NMS in the graph; None: without NMS.
    """

    def __init__(self, detector: Detector, limits: InGraph | None = None) -> None:
        super().__init__()
        self.detector, self.limits = detector, limits

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs, in order."""
        found = ["boxes", "scores"] + (["labels", "picture"] if self.limits else [])
        return found + raw_names(self.detector.specs)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] → the outputs that the module lists."""
        maps: list[Tensor] = self.detector(images)
        boxes, values = decoded(maps, self.detector.specs)
        found = suppressed(boxes, values, self.limits) if self.limits else (boxes, values)
        return (*found, *maps)


def raw_names(specs: Sequence[HeadSpec]) -> list[str]:
    """Return the names of the outputs that hold the raw maps, in the order of the levels."""
    return [f"raw_{level}" for level in range(len(specs))]


def fixed_size(detector: Detector) -> Size | None:
    """Return the only input (H, W) of a network with fully connected layers; None: it takes any."""
    size: Size | None = getattr(detector, "fixed_size", None)
    return size


def trace(model: Readable) -> torch.export.ExportedProgram:
    """Trace a model for any batch and, unless its input is fixed, any size of whole cells of the coarsest stride.

    Raises:
        UserError: a layer does what no graph can hold.
    """
    stride, fixed = model.detector.max_stride, fixed_size(model.detector)
    height, width = torch.export.Dim("rows", min=1), torch.export.Dim("columns", min=1)
    sides = {} if fixed else {2: stride * height, 3: stride * width}
    shapes = ({0: torch.export.Dim("batch", min=1), **sides},)
    # A batch of two and sides that differ: torch.export takes a one for a constant, and equal sides for one.
    example = torch.zeros(2, 3, *(fixed or (3 * stride, 5 * stride)))
    try:
        with quiet():
            program = torch.export.export(model.eval().requires_grad_(False), (example,), dynamic_shapes=shapes)
    except Exception as error:  # torch has dozens
        raise UserError(f"this network cannot be exported ({' '.join(str(error).split())[:160]})") from error
    for node in program.graph.nodes:
        for note in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
            node.meta.pop(note, None)  # the paths of this machine are nobody's business
    return program
