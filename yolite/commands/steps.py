"""The path from YOLO to YOLOv2 (YOLO9000, arXiv 1612.08242, table 2) as settings, each step laid on the one before.

Layers, codes and losses are those of configs/yolov1.yaml and configs/yolov2.yaml; what a step changes stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yolite.errors import UserError
from yolite.paths import descriptor
from yolite.settings import merge, read_config_file
from yolite.structures import Size

Rows = list[dict[str, Any]]

TAKEN = ("imgsz", "model.backbone", "model.neck", "model.head", "model.norm", "model.code", "train.multi_scale")
"""What the steps set themselves: none of it can be given (but the size of the later steps, by --imgsz)."""


@dataclass(frozen=True)
class Step:
    """One row of the table.

    Attributes:
        key: For the names of its runs.
        name: For people: what it switches on.
        settings: Plain nested settings, whole.
    """

    key: str
    name: str
    settings: dict[str, Any]


def _read(name: str) -> dict[str, Any]:
    return read_config_file(descriptor(name, "configs", "model"))


def _sized(rows: Rows, size: Size) -> Rows:
    """Return rows whose layers with a weight for each place are made for maps of ``size`` (H, W)."""
    return [{**row, "size": list(size)} if "size" in row else row for row in rows]


def _direct(model: Mapping[str, Any], imgsz: Size, cells: Size) -> dict[str, Any]:
    """Return the parts of YOLOv1's model that depend on the input: so many cells, whatever the size.

    Its last maps have a 64th of the input's sides, rounded up; the fully connected layer makes the grid of them.
    """
    last = (-(-imgsz[0] // 64), -(-imgsz[1] // 64))
    head = [{**row, "grid": list(cells)} for row in _sized(model["head"], last)]
    code = {**model["code"], "strides": [imgsz[0] // cells[0]]}
    return {"neck": _sized(model["neck"], last), "head": head, "code": code}


def _without_passthrough(neck: Rows) -> Rows:
    """Return YOLOv2's neck without the finer map that is joined to the coarser one."""
    branch = next(n for n, row in enumerate(neck) if row.get("from") == "c4")
    joined = next(n for n, row in enumerate(neck) if row["block"] == "concat")
    return [*neck[:branch], *neck[joined + 1 :]]


def hand_picked(size: Size) -> list[list[list[float]]]:
    """Return nine anchors as Faster R-CNN has them (arXiv 1506.01497, section 3.3): three areas, three shapes."""
    sides = [share * (size[0] * size[1]) ** 0.5 for share in (0.1, 0.25, 0.6)]
    return [[[round(s * r, 2), round(s / r, 2)] for s in sides for r in (0.5**0.5, 1.0, 2.0**0.5)]]


def steps(imgsz: Size) -> Sequence[Step]:
    """Return the eight rows; the first two see half of ``imgsz`` (H, W).

    Raises:
        UserError: the halves of its sides are not multiples of 32.
    """
    if any(side % 64 for side in imgsz):
        raise UserError(f"ablate: imgsz {imgsz[0]}x{imgsz[1]}: its half is tried too: give multiples of 64")
    v1, v2 = _read("yolov1"), _read("yolov2")
    half, cells = (imgsz[0] // 2, imgsz[1] // 2), (imgsz[0] // 64, imgsz[1] // 64)
    common = {"train": v1["train"]}
    out: list[Step] = []

    def add(key: str, name: str, changes: Mapping[str, Any], **sections: Any) -> None:
        """Lay ``changes`` on the step before; ``sections`` replace what it had."""
        before = dict(out[-1].settings) if out else {}
        model = {**before.get("model", {}), **sections.pop("model", {})}
        out.append(Step(key, name, merge({**before, **sections, "model": model}, changes)))

    model = {**v1["model"], "name": "yolo-to-yolov2", "norm": "none"}
    add(
        "yolo", "YOLO", {"imgsz": list(half)}, **common, model={**model, **_direct(model, half, cells)}, loss=v1["loss"]
    )
    add("norm", "batch norm", {"model": {"norm": "bn"}})
    add("size", "higher resolution", {}, imgsz=list(imgsz), model=_direct(model, imgsz, cells))
    # the stride of the fully connected layers goes, so that there are four times as many cells (section 2)
    neck = [{k: v for k, v in row.items() if k != "stride"} for row in model["neck"] if row["block"] == "conv"]
    code = {**v2["model"]["code"], "xy": "free", "anchors": hand_picked(imgsz), "anchors_per_level": 9}
    train = {"clip": v2["train"]["clip"]}
    model = {"neck": neck, "head": v2["model"]["head"], "code": code}
    add("anchors", "anchor boxes", {}, model=model, train=train, loss=v2["loss"])
    plain = _without_passthrough(v2["model"]["neck"])
    add("network", "new network", {}, model={"backbone": v2["model"]["backbone"], "neck": plain})
    add("priors", "dimension priors, bounded location", {}, model={"code": v2["model"]["code"]})
    add("passthrough", "passthrough", {}, model={"neck": v2["model"]["neck"]})
    add("scales", "multi-scale", {"train": {k: v2["train"][k] for k in ("multi_scale", "multi_scale_every")}})
    return out
