"""What a report says of where an evaluation comes from: the run, its settings, its data, or a results file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from yolite.anchors import all_anchors, fit_report
from yolite.build import build_preprocess
from yolite.checkpoint import restore_specs
from yolite.config import Config, to_plain
from yolite.data.dataset import Split
from yolite.data.health import BoxTable, box_table
from yolite.report.evaluation import Story
from yolite.runs import flatten, is_run, read_run
from yolite.settings import make_config
from yolite.structures import HeadSpec

ROWS = ("model.backbone", "model.neck", "model.head")
"""Settings that are too long for a table."""


def tell_run(
    title: str, content: Mapping[str, Any], history: Sequence[Mapping[str, Any]], splits: Sequence[Split],
    config: Config, seconds: Mapping[str, float] | None,
) -> Story:  # fmt: skip
    """Return the story of a network.

    Args:
        title: What was judged.
        content: Its checkpoint.
        history: The rows of its metrics.
        splits: The data; the last is the judged one.
        config: How it was judged.
        seconds: An image, by stage.
    """
    trained = make_config(content["config"])
    t, specs, judged = trained.train, restore_specs(content), splits[-1]
    parameters = sum(
        v.numel() for k, v in content["weights"].items() if not k.endswith(("running_mean", "running_var"))
    )
    place = content.get("training", {}).get("place")
    facts = [("model", f"{trained.model.name}, {parameters / 1e6:.2f} M parameters, {len(content['names'])} classes")]
    known = "training" in content  # an imported network has none
    where = _where(splits[0]) if len(splits) > 1 else trained.data.source
    facts += [("trained on", where if known else "not known: the weights hold no training (imported)")]
    if place:
        facts += [("epochs", f"{place['epoch']} of {t.epochs}, in steps of {t.batch} images; input "
                             f"{trained.imgsz[0]}x{trained.imgsz[1]}"),
                  ("optimiser", f"{t.optimizer}, peak learning rate {t.lr}, {t.precision}, on {trained.device}"),
                  ("time", f"{place['seconds']:.0f} s")]  # fmt: skip
    e = config.eval
    facts += [("judged on", _where(judged)),
              ("with", f"confidence {e.conf}, NMS IoU {e.iou}, at most {e.max_det} boxes an image, input "
                       f"{config.imgsz[0]}x{config.imgsz[1]}")]  # fmt: skip
    boxes = _boxes(splits, config)
    return Story(title, facts, _changed(trained), history, known, seconds, _anchors(specs, boxes, trained), len(specs),
                 boxes, config.imgsz, splits)  # fmt: skip


def tell_results(results: Path, split: Split, config: Config) -> Story:
    """Return the story of a results file."""
    facts = [("detections", str(results)), ("judged on", _where(split)),
             ("with", "all boxes of the file; COCO's 100 boxes of a class and image count")]  # fmt: skip
    return Story(f"{results.name} on {split.role}", facts, [], [], False, None, None, 1, _boxes([split], config),
                 config.imgsz, [split])  # fmt: skip


def history_of(weights: Path, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of metrics beside a checkpoint, else those inside it; empty where no epoch is finished."""
    folder = weights if weights.is_dir() else weights.parent
    if is_run(folder) and (rows := read_run(folder).history):
        return rows
    rows = content.get("training", {}).get("place", {}).get("history", [])
    return list(rows)


def _where(split: Split) -> str:
    return f"{split.where}: {len(split.samples)} images, {split.boxes} boxes"


def _changed(config: Config) -> list[tuple[str, str]]:
    """Return the settings that are not those of a run of the same model without any wish."""
    defaults = dict(flatten(to_plain(make_config({"model": to_plain(config)["model"]}))))
    return [(key, str(value)) for key, value in flatten(to_plain(config))
            if key not in ROWS and (key == "model.code.anchors" or defaults.get(key) != value)]  # fmt: skip


def _boxes(splits: Sequence[Split], config: Config) -> BoxTable | None:
    """Return the boxes in input px; None where an image's size is not known."""
    if any(min(sample.size) < 1 for split in splits for sample in split.samples):
        return None
    return box_table(splits, build_preprocess(config))


def _anchors(specs: tuple[HeadSpec, ...], boxes: BoxTable | None, config: Config) -> Any:
    """Return how the anchors fit the boxes of the first split; None without boxes."""
    if boxes is None:
        return None
    wh = torch.from_numpy(boxes.wh[(boxes.roles == 0) & boxes.targets]).float()
    return fit_report(wh, all_anchors(specs), config.loss.assign.ratio) if len(wh) else None
