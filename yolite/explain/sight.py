"""What one prediction sees of the picture, and what down-sampling leaves of an object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from yolite.codec import decode, scores
from yolite.explain.trace import Place, Trace
from yolite.inference import Inference
from yolite.models.summary import summarise

SHARES = (0.5, 0.95)
"""Of the whole influence; the squares that hold them are told."""


@dataclass(frozen=True)
class Sight:
    """What decides one prediction.

    Attributes:
        receptive: Side in input px of the square that its cell can see at most, by the layers' kernels and strides;
            None: the layer is fully connected, so that it sees everything.
        centre: (x, y) of that square, input px.
        influence: [H, W] size of the gradient of its objectness by each input px, the largest 1.
        sides: Side in px of the square around ``centre`` that holds each of `SHARES` of it.
        cam: [H, W] where the features that raise its score lie (Grad-CAM), the largest 1.
        layer: Index of the layer whose features these are.
    """

    receptive: int | None
    centre: tuple[float, float]
    influence: np.ndarray
    sides: tuple[float, ...]
    cam: np.ndarray
    layer: int


def look(inference: Inference, trace: Trace, place: Place, label: int) -> Sight:
    """Follow one prediction back to the picture, once more through the network, this time with gradients.

    The influence of a px is the size of the gradient there, summed over the colours (the effective receptive field:
    arXiv 1701.04128, section 2). Grad-CAM (arXiv 1610.02391, eq. 1 to 2) weighs each channel of the map before the head
    by its mean gradient, adds them up and keeps what is positive.

    Args:
        inference: The network at work, on the CPU.
        trace: Of the picture.
        place: The prediction.
        label: The class whose score is looked at.
    """
    graph, spec = inference.detector.graph, trace.specs[place.level]
    output = graph.outputs[place.level]
    layer = max(graph.records[output].inputs)
    kept: list[Tensor] = []
    hook = graph.layers[layer].register_forward_hook(lambda *args: kept.append(args[-1]))
    pixels = inference.preprocess.normalise(torch.from_numpy(trace.pixels).permute(2, 0, 1)[None].clone())
    try:
        with torch.enable_grad():
            pixels.requires_grad_()
            one = decode(inference.detector(pixels)[place.level], spec)
            at = (0, place.anchor, place.row, place.column)
            score = scores(one.objectness[at], one.classes[at], spec)[label]
            (by_pixel,) = torch.autograd.grad(one.objectness[at], pixels, retain_graph=True)
            (by_feature,) = torch.autograd.grad(score, kept[0])
    finally:
        hook.remove()
    cam = (by_feature.mean((2, 3), keepdim=True) * kept[0].detach()).sum(1, keepdim=True).clamp(min=0)
    cam = torch.nn.functional.interpolate(cam, trace.pixels.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    centre = ((place.column + 0.5) * spec.stride, (place.row + 0.5) * spec.stride)
    influence = _up_to_one(by_pixel[0].abs().sum(0).numpy())
    receptive = None
    if inference.detector.fixed_size is None:
        receptive = summarise(inference.detector, trace.letterbox.input)[output].receptive
    return Sight(receptive, centre, influence, _sides(influence, centre), _up_to_one(cam.numpy()), layer)


def _up_to_one(values: np.ndarray) -> np.ndarray:
    """Return values from 0 on as shares of the largest; what is no number counts as 0."""
    values = np.nan_to_num(values, posinf=0.0)
    return values / max(float(values.max()), 1e-30)


def _sides(influence: np.ndarray, centre: tuple[float, float]) -> tuple[float, ...]:
    """Return the sides of the squares around ``centre`` that hold `SHARES` of the influence."""
    height, width = influence.shape
    across = np.abs(np.arange(width) + 0.5 - centre[0])[None, :]
    down = np.abs(np.arange(height) + 0.5 - centre[1])[:, None]
    distance = np.maximum(across, down).ravel()
    order = np.argsort(distance, kind="stable")
    held = np.cumsum(influence.ravel()[order], dtype=np.float64)
    if not held[-1] > 0:
        return (0.0,) * len(SHARES)
    return tuple(float(2 * distance[order][np.searchsorted(held, share * held[-1])]) for share in SHARES)


@dataclass(frozen=True)
class Stage:
    """The last layer of the network at one scale before the head.

    Attributes:
        stride: Input px a cell.
        layer: Its index.
        block: Its kind.
        activity: [H, W] mean size of its channels, the largest 1.
    """

    stride: int
    layer: int
    block: str
    activity: np.ndarray


def stages(inference: Inference, trace: Trace) -> list[Stage]:
    """Return one layer for each scale that the picture goes through on its way down: the last before it is halved."""
    height = trace.letterbox.input[0]
    found: dict[int, Stage] = {}
    deepest = 0
    for index, record in enumerate(inference.detector.graph.records):
        answer = trace.outputs[index]
        if index in inference.detector.graph.outputs or answer.dim() != 4 or height % answer.shape[2]:
            continue
        stride = height // answer.shape[2]
        if answer.shape[3] * stride != trace.letterbox.input[1] or stride > inference.detector.max_stride:
            continue  # a branch aside (attention)
        if stride < deepest:
            break  # on the way up again
        deepest = stride
        activity = answer[0].abs().mean(0).float().numpy()
        found[stride] = Stage(stride, index, record.block, _up_to_one(activity))
    return [found[stride] for stride in sorted(found)]
