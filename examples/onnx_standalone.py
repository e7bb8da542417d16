"""Run an exported ONNX file without yolite and without PyTorch: onnxruntime, NumPy and Pillow alone.

    yolite export --weights runs/yolite-n-1 --format onnx --out model.onnx
    python examples/onnx_standalone.py model.onnx photo.jpg

Everything it needs to know stands in the file: the metadata entry ``yolite`` holds names and preprocessing as JSON.
Copy what you need; docs/deploy.md describes the format.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def letterbox(picture: Image.Image, about: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a picture into the network's input; where its size is free, pad to the next 32 px (or coarsest cell) only.

    Returns:
        The input [1, 3, H, W] float32; and scale and shift (x, y): input px = image px · scale + shift.
    """
    preprocess = about["preprocess"]
    height, width = preprocess["size"]
    ratio = min(height / picture.height, width / picture.width)
    if preprocess["mode"] == "stretch":
        new = (width, height)
    else:
        new = (min(width, max(1, round(picture.width * ratio))), min(height, max(1, round(picture.height * ratio))))
    shrinks = new[0] <= picture.width and new[1] <= picture.height
    # BOX averages all pixels that fall together; without that, small objects flicker away
    small = picture.resize(new, Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
    if not about["export"]["fixed"]:
        step = max(32, *(spec["stride"] for spec in about["specs"]))
        width, height = (min(most, -(-part // step) * step) for most, part in zip((width, height), new, strict=True))
    left, top = (width - new[0]) // 2, (height - new[1]) // 2
    canvas = np.full((height, width, 3), preprocess["pad"], np.float32)
    canvas[top : top + new[1], left : left + new[0]] = np.asarray(small)
    normal = (canvas / 255 - np.float32(preprocess["mean"])) / np.float32(preprocess["std"])
    scale = np.array([new[0] / picture.width, new[1] / picture.height])
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None], np.float32), scale, np.array([left, top])


def suppress(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, iou: float) -> list[int]:
    """Class-wise NMS: keep the best box, drop those of its class that overlap it by more than ``iou``, and so on."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order, kept = list(np.argsort(-scores, kind="stable")), []
    while order:
        best = order.pop(0)
        kept.append(int(best))
        rest = np.array(order, int)
        corner = np.minimum(boxes[rest, 2:], boxes[best, 2:]) - np.maximum(boxes[rest, :2], boxes[best, :2])
        inside = np.clip(corner, 0, None).prod(1)
        overlaps = inside / (area[rest] + area[best] - inside + 1e-12) > iou
        order = [int(i) for i, o in zip(rest, overlaps, strict=True) if not (o and labels[i] == labels[best])]
    return kept


def detect(session: onnxruntime.InferenceSession, path: str, conf: float = 0.25, iou: float = 0.5) -> list[dict]:
    """Return what is seen on a picture: name, score and box (x1, y1, x2, y2 in px of the picture), best first."""
    about = json.loads(session.get_modelmeta().custom_metadata_map["yolite"])
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file).convert("RGB")
    images, scale, shift = letterbox(picture, about)
    if about["export"]["nms"]:  # thresholded and suppressed in the graph
        boxes, score, label = session.run(["boxes", "scores", "labels"], {"images": images})
    else:
        boxes, scores = (value[0] for value in session.run(["boxes", "scores"], {"images": images}))
        label, score = scores.argmax(1), scores.max(1)
        likely = score > conf
        boxes, label, score = boxes[likely], label[likely], score[likely]
        kept = suppress(boxes, score, label, iou)
        boxes, label, score = boxes[kept], label[kept], score[kept]
    corners = (boxes.reshape(-1, 2, 2) - shift) / scale
    corners = corners.clip(0, (picture.width, picture.height)).reshape(-1, 4)
    return [
        {"name": about["names"][int(k)], "score": float(s), "box": [round(float(v), 2) for v in box]}
        for k, s, box in zip(label, score, corners, strict=True)
    ]


if __name__ == "__main__":
    model = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    for name in sys.argv[2:]:
        for found in detect(model, name):
            print(name, found["name"], f"{found['score']:.3f}", found["box"])
