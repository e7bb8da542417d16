"""The types that flow through yolite: frozen records whose shapes are checked when they are made.

Coordinates (docs/coordinates.md): boxes are xyxy, float32, continuous (no "+1"); sizes are (H, W); images are RGB;
labels are int64, contiguous from 0. Four spaces exist, and each name says which one it is in:

* **image px**: the file as a person sees it (EXIF orientation applied): `Sample`, `Detections`.
* **input px**: the letterboxed picture the network sees: `Targets`, anchors, decoded boxes.
* **grid cells**: one unit is one cell of one level: only inside codec.py and training/assign.py.
* **normalised** and **COCO xywh**: only inside the readers and writers of those formats.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Size = tuple[int, int]
"""(height, width) in px."""


def _check(owner: str, name: str, value: Tensor, shape: tuple[int | None, ...], dtype: torch.dtype | None) -> None:
    """Raise ValueError unless ``value`` has ``shape`` (None: any length) and ``dtype`` (None: any)."""
    got = tuple(value.shape)
    if len(got) != len(shape) or any(want is not None and want != have for want, have in zip(shape, got, strict=True)):
        expected = "[" + ", ".join("*" if s is None else str(s) for s in shape) + "]"
        raise ValueError(f"{owner}.{name}: expected shape {expected}, got {list(got)}")
    if dtype is not None and value.dtype != dtype:
        raise ValueError(f"{owner}.{name}: expected {dtype}, got {value.dtype}")


@dataclass(frozen=True)
class Sample:
    """One labelled image, as the readers return it; the pixels stay in the file.

    Attributes:
        path: The image file; None where a data set has boxes alone (a COCO json without its images).
        size: (H, W) of the image in px, EXIF orientation applied; (0, 0) where nobody says (a COCO json without
            sizes, read for its boxes alone).
        boxes: [N, 4] float32, xyxy, image px.
        labels: [N] int64, 0 … classes − 1.
        iscrowd: [N] bool; COCO's crowd regions: never a target, never counted as missed or false.
        area: [N] float32, px²; COCO's own ``area`` (of the mask) where given, else the box's.
        difficult: [N] bool; VOC's flag, treated like a crowd by the evaluator.
        id: The data set's own id of the image (COCO), or the file's stem.
    """

    path: Path | None
    size: Size
    boxes: Tensor
    labels: Tensor
    iscrowd: Tensor
    area: Tensor
    difficult: Tensor
    id: int | str

    def __post_init__(self) -> None:
        n = self.boxes.shape[0]
        _check("Sample", "boxes", self.boxes, (None, 4), torch.float32)
        _check("Sample", "labels", self.labels, (n,), torch.int64)
        _check("Sample", "iscrowd", self.iscrowd, (n,), torch.bool)
        _check("Sample", "area", self.area, (n,), torch.float32)
        _check("Sample", "difficult", self.difficult, (n,), torch.bool)

    @property
    def ignore(self) -> Tensor:
        """[N] bool: boxes that are neither targets nor misses (crowd regions and VOC's difficult ones)."""
        return self.iscrowd | self.difficult


@dataclass(frozen=True)
class Targets:
    """The labelled boxes of a batch, flat.

    Attributes:
        boxes: [M, 4] float, xyxy, input px.
        labels: [M] int64.
        image: [M] int64, the box's place in the batch.
        ignore: [M] bool; no target, but predictions on it are not counted as background.
    """

    boxes: Tensor
    labels: Tensor
    image: Tensor
    ignore: Tensor

    def __post_init__(self) -> None:
        m = self.boxes.shape[0]
        _check("Targets", "boxes", self.boxes, (None, 4), None)
        _check("Targets", "labels", self.labels, (m,), torch.int64)
        _check("Targets", "image", self.image, (m,), torch.int64)
        _check("Targets", "ignore", self.ignore, (m,), torch.bool)

    def __getitem__(self, index: Tensor) -> Targets:
        """Select boxes; every field is indexed alike."""
        return Targets(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device | str) -> Targets:
        """Return the same targets on another device."""
        return Targets(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def scaled(self, factor_y: float, factor_x: float) -> Targets:
        """Return the targets of the same images resized by these factors (multi-scale training)."""
        factors = self.boxes.new_tensor([factor_x, factor_y, factor_x, factor_y])
        return replace(self, boxes=self.boxes * factors)


@dataclass(frozen=True)
class Batch:
    """What the loader hands to the trainer and the evaluator.

    Attributes:
        images: [B, 3, H, W] uint8, RGB, letterboxed.
        targets: The boxes of these images, input px.
        letterboxes: One `yolite.geometry.Letterbox` an image (how to get back to image px).
        indices: Place of each image in the split (in training: as `yolite.data.loader.Key` counts them).
    """

    images: Tensor
    targets: Targets
    letterboxes: tuple[Any, ...]
    indices: tuple[int, ...]

    def __post_init__(self) -> None:
        _check("Batch", "images", self.images, (len(self.indices), 3, None, None), torch.uint8)
        if len(self.letterboxes) != len(self.indices):
            raise ValueError(f"Batch.letterboxes: expected {len(self.indices)}, got {len(self.letterboxes)}")


XYCode = Literal["sigmoid", "linear", "free"]
WHCode = Literal["exp", "sigmoid_square", "square"]
ObjectnessCode = Literal["sigmoid", "linear"]
ClassCode = Literal["sigmoid", "softmax", "linear"]
ClassesPer = Literal["box", "cell"]


@dataclass(frozen=True)
class HeadSpec:
    """How one raw map [B, `channels`, H, W] is to be read: the whole difference between YOLO generations.

    Attributes:
        stride: Input px a cell.
        anchors: ((w, h), …) in input px, A of them.
        classes: Number of classes.
        xy: ``sigmoid``: centre = (cell + s·σ(t) − (s − 1) / 2) · stride with s = `grid_scale` (YOLO9000, eq. 1 to 2);
            ``linear``: centre = (cell + t) · stride (YOLOv1); ``free``: centre = (cell + ½) · stride + t · anchor,
            which can be anywhere in the picture (region proposals; YOLO9000, section 2, argues against it).
        grid_scale: 1 for YOLOv2 and v3; above 1 the centre can reach, and pass, the border of its cell.
        wh: ``exp``: size = anchor · e^t (YOLO9000, eq. 3 to 4); ``sigmoid_square``: size = anchor · (2σ(t))²;
            ``square``: size = anchor · t² (YOLOv1, whose anchors are all the input's own width and height).
        class_code: ``sigmoid`` (independent logistic classes, YOLOv3), ``softmax`` (YOLOv2) or ``linear`` (YOLOv1: the
            number itself is taken for the probability).
        objectness: ``sigmoid``, or ``linear`` (YOLOv1).
        classes_per: ``box``: every anchor has class scores of its own, the channels are A times (tx, ty, tw, th,
            objectness, classes); ``cell``: the boxes of a cell share them (YOLOv1), the channels are A times (tx, ty,
            tw, th, objectness), then the classes.
    """

    stride: int
    anchors: tuple[tuple[float, float], ...]
    classes: int
    xy: XYCode = "sigmoid"
    grid_scale: float = 1.0
    wh: WHCode = "exp"
    class_code: ClassCode = "sigmoid"
    objectness: ObjectnessCode = "sigmoid"
    classes_per: ClassesPer = "box"

    def __post_init__(self) -> None:
        if self.stride < 1 or self.classes < 1 or not self.anchors:
            raise ValueError(f"HeadSpec: stride, classes and anchors must be given, got {self}")
        if any(not (w > 0 and h > 0) for w, h in self.anchors):
            raise ValueError(f"HeadSpec.anchors: sides must be positive, got {self.anchors}")
        if self.grid_scale < 1:
            raise ValueError(f"HeadSpec.grid_scale: must be at least 1, got {self.grid_scale}")
        if self.grid_scale != 1 and self.xy != "sigmoid":
            raise ValueError(f"HeadSpec.grid_scale: {self.grid_scale} means nothing with xy={self.xy}, it must be 1")

    @property
    def channels(self) -> int:
        """Channels of the raw map."""
        if self.classes_per == "cell":
            return len(self.anchors) * 5 + self.classes
        return len(self.anchors) * (5 + self.classes)


@dataclass(frozen=True)
class Assignment:
    """Which predictions of one level are responsible for which targets (P positives).

    Attributes:
        image, anchor, row, column: [P] int64; they index a map viewed as [B, A, H, W].
        target: [P] int64, the row in `Targets`.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    target: Tensor

    def __post_init__(self) -> None:
        p = self.image.shape[0]
        for f in fields(self):
            _check("Assignment", f.name, getattr(self, f.name), (p,), torch.int64)


@dataclass(frozen=True)
class LossOutput:
    """The loss of a batch.

    Attributes:
        total: Scalar, the weighted sum; call ``backward()`` on it.
        parts: Each weighted part by name, detached scalars; they add up to ``total``.
        positives: Number of positive predictions.
    """

    total: Tensor
    parts: dict[str, Tensor]
    positives: int


@dataclass(frozen=True)
class Detections:
    """The boxes found in one image, best score first.

    Attributes:
        boxes: [N, 4] float32, xyxy, image px.
        scores: [N] float32 in [0, 1].
        labels: [N] int64.
        size: (H, W) of the image in px.
        capped: True when more boxes passed the thresholds than ``max_det`` lets through.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    size: Size
    capped: bool = False

    def __post_init__(self) -> None:
        n = self.boxes.shape[0]
        _check("Detections", "boxes", self.boxes, (None, 4), torch.float32)
        _check("Detections", "scores", self.scores, (n,), torch.float32)
        _check("Detections", "labels", self.labels, (n,), torch.int64)

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def __getitem__(self, index: Tensor) -> Detections:
        """Select boxes; every field is indexed alike."""
        return replace(self, boxes=self.boxes[index], scores=self.scores[index], labels=self.labels[index])


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes network input; stored in the checkpoint and used alike by loader, predictor and export.

    Attributes:
        size: (H, W) of the network input in px; in detection the most that it has (`yolite.geometry.Letterbox.fit`).
        mode: ``letterbox`` keeps the aspect ratio and pads; ``stretch`` does not (Darknet).
        pad: Grey value of the padding, 0 to 255.
        mean, std: Per RGB channel, on the 0 to 1 scale: input = (pixel / 255 − mean) / std.
    """

    size: Size
    mode: Literal["letterbox", "stretch"] = "letterbox"
    pad: int = 114
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"Preprocess.size: must be positive, got {self.size}")

    def normalise(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Turn uint8 images [B, 3, H, W] into network input of ``dtype``, the same shape."""
        shares = images.to(dtype) / 255
        if not any(self.mean) and all(std == 1 for std in self.std):
            return shares  # to subtract 0 and divide by 1 would be most of the work
        mean = torch.tensor(self.mean, device=images.device, dtype=dtype).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device, dtype=dtype).view(1, 3, 1, 1)
        return (shares - mean) / std
