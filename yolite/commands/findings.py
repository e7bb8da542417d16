"""What evaluate and the end of a training run say of an evaluation, and the files they leave."""

from __future__ import annotations

import json as json_text
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolite.config import Config
from yolite.console import Console
from yolite.errors import UserError
from yolite.evaluation.advice import advice
from yolite.evaluation.analysis import Analysis, to_plain
from yolite.evaluation.coco import NUMBERS
from yolite.evaluation.curves import Point
from yolite.evaluation.errors import KINDS
from yolite.evaluation.evaluate import to_json
from yolite.evaluation.match import NEAR
from yolite.evaluation.results import results_rows, worst_file
from yolite.evaluation.worst import doubts
from yolite.files import check_writable, write_atomically
from yolite.paths import free_run_folder
from yolite.structures import Detections, Sample


def plain_findings(
    found: Analysis, samples: Sequence[Sample], config: Config, seconds: dict[str, float] | None
) -> dict[str, Any]:
    """Return evaluate's JSON."""
    metric = to_json(found.result, config.eval.conf, config.eval.iou, config.eval.max_det, seconds)
    plain = to_plain(found, samples)
    for row, threshold in zip(metric["per_class"], plain.pop("class_thresholds"), strict=True):
        row["threshold"] = threshold
    return {**metric, **plain}


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _threshold(point: Point | None) -> list[str]:
    """Return confidence, precision, recall and F as text."""
    if point is None:
        return ["-"] * 4
    return [f"{point.confidence:.3f}", _share(point.precision), _share(point.recall), _share(point.f)]


def print_findings(found: Analysis, config: Config, console: Console, title: str) -> None:
    """Print the 12 numbers, each class with its threshold, that for all, where the AP goes, and what to do next."""
    e, result = config.eval, found.result
    console.table(f"{title}: {result.images} images", list(NUMBERS), [[f"{result.numbers[n]:.3f}" for n in NUMBERS]])
    f = f"F{found.beta:g}"
    rows = [
        [c.name, str(c.objects), f"{c.AP:.3f}", f"{c.AP50:.3f}", *_threshold(point)]
        for c, point in zip(result.per_class, found.class_deploy, strict=True)
    ]
    console.table(f"by class; conf: the threshold of its {found.chosen_by}, P, R and {f} are those at it, {found.at}",
                  ["class", "objects", "AP", "AP50", "conf", "P", "R", f], rows)  # fmt: skip
    console.say(f"pycocotools; confidence {e.conf}, NMS IoU {e.iou}, at most {e.max_det} boxes an image; -1: no object")
    _print_threshold(found, console)
    split = found.errors
    iou = f"{found.matching.iou[0]:g}"
    rows = [
        [f"{kind}: {meaning.format(f=iou, b=NEAR)}", str(split.counts[kind]), f"{split.gives_back[kind]:+.3f}"]
        for kind, meaning in KINDS.items()
    ]
    console.table(f"where AP50 {split.ap:.3f} goes: confidence {e.conf}, {found.at}",
                  ["mistake", "count", "AP50 if mended"], rows)  # fmt: skip
    for line in advice(found):
        console.say(f"next: {line}")


def _print_threshold(found: Analysis, console: Console) -> None:
    """Say at which confidence to deploy, and what is shown there."""
    p = found.deploy
    if p is None:
        never = f"the precision {found.precision:g} is never reached" if found.precision else "no box is right"
        why = never if found.curves.right.any() else "no box is right"
        console.say(f"no threshold to deploy: {why}; pictures are judged at {found.confidence:g}")
        return
    console.say(
        f"deploy at confidence {p.confidence:.3f} ({found.chosen_by} of all classes together, {found.at}): precision "
        f"{_share(p.precision)}, recall {_share(p.recall)}, F{p.beta:g} {p.f:.3f}; {p.right} boxes right, {p.wrong} "
        f"wrong, {p.missed} objects missed"
    )


@dataclass(frozen=True)
class FindingsFiles:
    """Where the files of an evaluation go.

    Attributes:
        worst: The worst pictures; None: nothing can be written.
        detections: The detections.
    """

    worst: Path | None
    detections: Path


def findings_files(json: Path | None, report: Path | None) -> FindingsFiles | None:
    """Return files beside the first of --json and --report that was given; None: in a folder that is made for them.

    Raises:
        UserError: --json or --report, or the files beside it, cannot be written; the report is no .html.
    """
    for flag, path in (("--json", json), ("--report", report)):
        if path is not None:
            check_writable(path, flag)
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--report {report}: the report is a .html")
    beside = json or report
    if beside is None:
        return None
    worst, detections = (beside.with_name(f"{beside.stem}-{what}.json") for what in ("worst", "detections"))
    for path in (worst, detections):
        check_writable(path, "the file")
    return FindingsFiles(worst, detections)


def _own_folder() -> FindingsFiles:
    """Make a folder runs/evaluate-N for this program alone; where none can be made nothing can be written."""
    while True:
        folder = free_run_folder(Path("runs"), "evaluate")
        try:
            folder.mkdir(parents=True)
        except OSError:
            if folder.exists():  # another program has just taken this number
                continue
            return FindingsFiles(None, folder / "detections.json")
        return FindingsFiles(folder / "worst.json", folder / "detections.json")


def write_findings(
    files: FindingsFiles | None, found: Analysis, samples: Sequence[Sample], detections: Sequence[Detections] | None,
    category_ids: Sequence[int], console: Console,
) -> None:  # fmt: skip
    """Write the worst pictures and the detections (None: they came from a file), and say where."""
    files = files or _own_folder()
    if files.worst is None:
        console.warn("this folder cannot be written: the worst pictures are not; give --json FILE for them")
        return
    info = {"confidence": found.confidence, "iou": float(found.matching.iou[0]), "max_det": found.matching.max_det,
            "order": "sum of 1 for each missed object and the score of each false alarm"}  # fmt: skip
    content = worst_file(samples, found.worst, found.matching.names, category_ids, info)
    _write(files.worst, content)
    console.say(
        f"worst pictures first: {files.worst} ({len(found.worst)} of {len(samples)} pictures with something missed or "
        f"wrong at confidence {found.confidence:.3f}, {found.at}; {len(doubts(found.worst))} labels to check)"
    )
    if detections is None:
        return
    try:
        rows = results_rows(samples, detections, category_ids)
    except UserError as error:
        console.warn(str(error))
        return
    _write(files.detections, rows)
    console.say(f"detections: {files.detections} (for yolite compare, and evaluate --results)")


def _write(path: Path, content: Any) -> None:
    """Write JSON without spaces: these files can be long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(json_text.dumps(content, separators=(",", ":")).encode()))


def say_report(path: Path, size: int, console: Console) -> None:
    """Say where the report is."""
    console.say(f"report: {path} ({size / 2**20:.1f} MB, one file, needs no network)")
