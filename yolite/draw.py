"""Pictures for people: boxes on images, anchors against boxes."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from yolite.anchors import AnchorReport
from yolite.charts import figure
from yolite.geometry import Image
from yolite.structures import Detections


def colour(label: int) -> tuple[int, int, int]:
    """Return a colour (R, G, B) for a class; neighbours on the list differ clearly (golden angle on the circle)."""
    r, g, b = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.85, 0.95)
    return int(r * 255), int(g * 255), int(b * 255)


def draw_detections(image: Image, found: Detections, names: Sequence[str]) -> Image:
    """Return a copy of the image [H, W, 3] with boxes, names and scores, sized for the picture."""
    labels = found.labels.tolist()
    texts = [f"{names[label]} {score:.2f}" for label, score in zip(labels, found.scores.tolist(), strict=True)]
    return draw_boxes(image, found.boxes.tolist(), labels, texts)


def draw_boxes(image: Image, boxes: Sequence[Sequence[float]], labels: Sequence[int], texts: Sequence[str]) -> Image:
    """Return a copy of the image [H, W, 3] with boxes (xyxy px) in the colours of their classes, each with a text."""
    out = image.copy()
    unit = max(1, round(min(image.shape[:2]) / 320))
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.4 * unit
    # last first, so that the first (the best) stays on top
    for box, label, text in reversed(list(zip(boxes, labels, texts, strict=True))):
        x1, y1, x2, y2 = (round(v) for v in box)
        paint = colour(label)
        cv2.rectangle(out, (x1, y1), (x2, y2), paint, unit, cv2.LINE_AA)
        (width, height), base = cv2.getTextSize(text, font, size, unit)
        top = y1 - height - base if y1 - height - base >= 0 else y1
        left = max(0, min(x1, image.shape[1] - width))
        cv2.rectangle(out, (left, top), (left + width, top + height + base), paint, -1)
        ink = (0, 0, 0) if sum(paint) > 330 else (255, 255, 255)
        cv2.putText(out, text, (left, top + height), font, size, ink, unit, cv2.LINE_AA)
    return out


def plot_anchors(path: Path, wh: np.ndarray, report: AnchorReport, levels: int) -> None:
    """Draw box shapes [N, 2] as points and the anchors over them, coloured by level."""
    fig, axes = figure(7, 6.5)
    rng = np.random.default_rng(0)
    shown = wh if len(wh) <= 20000 else wh[rng.choice(len(wh), 20000, replace=False)]
    axes.scatter(shown[:, 0], shown[:, 1], s=3, c="0.6", linewidths=0, alpha=0.5, label=f"{report.boxes} boxes")
    each = max(1, len(report.anchors) // levels) if len(report.anchors) % levels == 0 else len(report.anchors)
    for level in range(-(-len(report.anchors) // each)):
        part = report.anchors[level * each : (level + 1) * each].numpy()
        name = f"anchors, level {level + 1}" if each < len(report.anchors) else "anchors"
        axes.scatter(part[:, 0], part[:, 1], s=70, marker="s", edgecolors="black", label=name, color=f"C{level}")
        for w, h in part:
            axes.annotate(f"{w:.0f}x{h:.0f}", (w, h), xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="width, input px", ylabel="height, input px")
    axes.set_title(f"k = {len(report.anchors)}: average IoU {report.avg_iou:.3f}, "
                   f"best possible recall {report.best_possible_recall:.3f}")  # fmt: skip
    axes.legend(loc="upper left", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path)
