"""Scenes that hold things of other pictures: mixup and pasted boxes (mosaic: `yolite.data.mosaic`)."""

from __future__ import annotations

import cv2
import numpy as np

from yolite.data.hidden import visible_share
from yolite.data.mosaic import Labelled, Patch, join, paste, zoom

PASTED = 3
"""Most boxes pasted into one picture."""
LARGEST = 0.5
"""Most of the canvas, by side, that a pasted box takes."""


def mixup(rng: np.random.Generator, one: Labelled, other: Labelled) -> Labelled:
    """Blend two scenes of one size and keep the boxes of both (arXiv 1710.09412; for detection 1902.04103).

    The share of the first is drawn from Beta(32, 32), nearly always 0.35 to 0.65: all objects stay recognisable.
    """
    share = float(rng.beta(32, 32))
    image = cv2.addWeighted(one.image, share, other.image, 1 - share, 0)
    return join(np.asarray(image, np.uint8), [one, other])


def box_patch(rng: np.random.Generator, box: list[float], canvas: tuple[int, int], scale: float) -> Patch:
    """Draw a zoom and a place on the canvas (H, W) for what is inside a box of another picture."""
    width, height = box[2] - box[0], box[3] - box[1]
    s = min(zoom(rng, scale), LARGEST * canvas[1] / width, LARGEST * canvas[0] / height)
    x1, y1, x2, y2 = int(box[0]), int(box[1]), int(np.ceil(box[2])), int(np.ceil(box[3]))
    w, h = max(1, int((x2 - x1) * s)), max(1, int((y2 - y1) * s))
    left, top = int(rng.integers(canvas[1] - w + 1)), int(rng.integers(canvas[0] - h + 1))
    return Patch((x1, y1, x2, y2), (left, top, left + w, top + h))


def copy_paste(
    rng: np.random.Generator, scene: Labelled, donor: Labelled, scale: float, min_visible: float
) -> Labelled:
    """Paste one to three boxes of another picture, with all they show, at random places into a scene.

    A box of which less than ``min_visible`` stays uncovered is left out.

    Args:
        rng: Of this sample.
        scene: The canvas with its boxes; it is drawn into.
        donor: The other picture.
        scale: Zoom of the pasted boxes; see `yolite.data.transforms.Augment`.
        min_visible: See above.
    """
    choice = np.flatnonzero(~donor.ignore.numpy())
    if not len(choice):
        return scene
    chosen = rng.choice(choice, size=min(len(choice), int(rng.integers(1, PASTED + 1))), replace=False)
    height, width = scene.image.shape[:2]
    patches = [box_patch(rng, donor.boxes[int(i)].tolist(), (height, width), scale) for i in chosen]
    layers = [scene, *(paste(scene.image, [donor], [patch], min_visible) for patch in patches)]
    hidden = np.zeros((height, width), bool)
    kept = []
    for layer, patch in zip(reversed(layers), [*reversed(patches), None], strict=True):  # from the top down
        kept.append(layer[visible_share(hidden, layer.boxes) >= min_visible])
        if patch is not None:
            x1, y1, x2, y2 = patch.target
            hidden[y1:y2, x1:x2] = True
    return join(scene.image, kept[::-1])
