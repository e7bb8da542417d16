"""``yolite anchors``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from yolite.anchors import Centroid, kmeans_anchors
from yolite.build import build_preprocess
from yolite.console import Console
from yolite.data.pictures import Pictures
from yolite.draw import plot_anchors
from yolite.errors import UserError
from yolite.files import check_writable, write_json
from yolite.reading import build_dataset, load_split
from yolite.settings import load_config
from yolite.training.prepare import box_shapes


def anchors_of_data(
    options: Mapping[str, Any], words: Sequence[str], k: int, json: Path | None, plot: Path | None, centroid: str,
    levels: int,
) -> None:  # fmt: skip
    """Cluster the training boxes and report how well the anchors fit.

    Raises:
        UserError: no data, too few boxes, an unknown centroid.
    """
    console = Console()
    kinds: dict[str, Centroid] = {kind: kind for kind in get_args(Centroid)}
    if centroid not in kinds:
        raise UserError(f"--centroid {centroid!r} is not known: give {' or '.join(kinds)}")
    if plot is not None and plot.suffix != ".png":
        raise UserError(f"--plot {plot}: the picture is a .png")
    for flag, path in (("--plot", plot), ("--json", json)):
        if path is not None:
            check_writable(path, flag)
    config = load_config(None, None, options, words)
    split = load_split(build_dataset(config, console), "train", console, need_images=False)
    wh = box_shapes(Pictures(split.samples, build_preprocess(config)))
    report = kmeans_anchors(wh, k, config.seed, centroid=kinds[centroid], ratio=config.loss.assign.ratio)
    if report.dropped:
        console.warn(f"{report.dropped} boxes without a finite, positive width and height were left out")
    shared = levels if k % levels == 0 else 1
    owned = report.best.bincount(minlength=k).tolist()
    rows = [
        [str(i + 1), str(i // (k // shared) + 1), f"{w:.1f}", f"{h:.1f}", str(owned[i]),
         f"{owned[i] / report.boxes:.1%}"]
        for i, (w, h) in enumerate(report.anchors.tolist())
    ]  # fmt: skip
    size = f"{config.imgsz[0]}x{config.imgsz[1]}"
    console.table(f"anchors at {size} px, by area", ["anchor", "level", "width", "height", "boxes", "share"], rows)
    console.say(
        f"k {k}: average IoU {report.avg_iou:.4f}; best possible recall {report.best_possible_recall:.4f} "
        f"(sides differ by less than {report.ratio:g} x); {report.boxes} boxes, {centroid} centroids"
    )
    if shared != levels:
        console.say(f"{k} anchors are no multiple of {levels} levels, so they are listed as one")
    if plot:
        plot_anchors(plot, wh.numpy(), report, shared)
        console.say(f"plot: {plot}")
    if json:
        anchors = [[round(w, 3), round(h, 3)] for w, h in report.anchors.tolist()]
        write_json(
            json,
            {
                "k": k,
                "imgsz": list(config.imgsz),
                "anchors": anchors,
                "avg_iou": report.avg_iou,
                "best_possible_recall": report.best_possible_recall,
                "boxes": report.boxes,
            },
        )
