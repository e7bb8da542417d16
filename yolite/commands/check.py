"""``yolite check``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from yolite.anchors import kmeans_anchors
from yolite.build import build_preprocess
from yolite.charts import plot_data, require_png
from yolite.config import Config
from yolite.console import Console
from yolite.data.dataset import DataSet, Split
from yolite.data.health import BoxTable, box_table, health
from yolite.data.preview import write_batches
from yolite.data.problems import Problem
from yolite.errors import UserError
from yolite.files import check_writable, write_json
from yolite.paths import free_run_folder
from yolite.reading import build_dataset, look_into
from yolite.settings import load_config
from yolite.training.prepare import first_batches

MOST = 20
"""So many findings of a kind are printed, unless all are asked for; all of them are in the JSON."""
CLASSES = 40
"""So many classes are printed; all of them are in the JSON."""


def check_data(
    options: Mapping[str, Any],
    words: Sequence[str],
    json: Path | None,
    plot: Path | None,
    show: int | None,
    every: bool,
) -> int:
    """Read all roles of a data set, say what is wrong with it and how it is made up; change nothing.

    Returns:
        The exit status: 1 if there is any problem.

    Raises:
        UserError: no data set, or none of its roles can be read.
    """
    console = Console()
    require_png(plot)
    for flag, path in (("--plot", plot), ("--json", json)):
        if path is not None:
            check_writable(path, flag)
    config = load_config(None, None, options, words)
    dataset = build_dataset(config, console)
    read, unread = _read(dataset, console)
    splits = look_into(dataset, read, console)
    found = _each_once(unread, splits)
    problems, notes = [p for p in found if not p.note], [p for p in found if p.note]
    for title, some in (("problems", problems), ("notes", notes)):
        _print_findings(title, some, len(some) if every else MOST, console)
    for name in [name for name, count in Counter(dataset.names).items() if count > 1]:
        console.warn(
            f"several classes are called {name!r}: only here their numbers tell them apart; rename all but one"
        )
    table = box_table(splits, build_preprocess(config))
    summary = health(splits, table) | {"imgsz": list(config.imgsz), "anchors": _anchors(splits, table, config)}
    _print_health(summary, console)
    if plot:
        colours = [split.role for split in splits]
        plot_data(plot, table.wh, table.centres, table.roles, colours, summary["classes"], config.imgsz)
        console.say(f"plot: {plot}")
    if json:
        write_json(json, _report(splits, problems, notes, summary))
    if show:
        _show(splits[0], config, show, console)
    images, boxes = sum(len(split.samples) for split in splits), sum(split.boxes for split in splits)
    console.say(f"{dataset.where}: {images} images, {boxes} boxes; {len(problems)} problems, {len(notes)} notes")
    return 1 if problems else 0


def _show(split: Split, config: Config, count: int, console: Console) -> None:
    """Write the first batches that training would see as pictures, and say what training would about the counts.

    Raises:
        UserError: there is no picture, or the settings of `yolite.data.balance` do not fit.
    """
    loader, _ = first_batches(split, config, count, console)
    folder = free_run_folder(Path("runs"), "check")
    files = write_batches(folder, count, loader, split.names)
    console.say(f"{split.role}: {len(files)} augmented batches of {loader.sampler.batch} images in {folder}")


def _read(dataset: DataSet, console: Console) -> tuple[list[Split], list[Problem]]:
    """Read every role; those that cannot be read are findings, as long as one can.

    Raises:
        UserError: none can.
    """
    splits: list[Split] = []
    problems: list[Problem] = []
    first: UserError | None = None
    played: dict[str, str] = {}
    for role in dataset.roles:
        entry = str(dataset.entries.get(role))
        if played.get(entry, "train") != "train":  # judging what was trained on is a finding, this is none
            console.say(f"{role} is what plays {played[entry]} too ({entry}): checked once")
            continue
        played[entry] = role
        try:
            splits.append(dataset.read(role))
        except UserError as error:
            first = first or error
            problems.append(Problem(Path(dataset.where), 0, "unreadable role", f"{role}: {error}"))
    if not splits:
        raise first or UserError(f"{dataset.where} has no role that could be checked")
    if dataset.plays_any_role:
        console.say(f"{dataset.where} plays any role; it is checked once, as {splits[0].role}")
        if not splits[0].samples and {p.kind for p in splits[0].problems} == {"missing image"}:
            console.say("none of its images lies beside it: only what the json itself says is checked")
            splits = [dataset.read(splits[0].role, need_images=False)]
    return splits, problems


def _each_once(unread: Sequence[Problem], splits: Sequence[Split]) -> list[Problem]:
    """Return all findings: a file that plays two roles is read twice, but what is wrong with it is said once.

    Findings of one role may well read alike, as those of COCO's annotations without ids do: all of them count.
    """
    found = Counter(unread)
    for split in splits:
        found |= Counter(split.problems)
    return list(found.elements())


def _report(
    splits: Sequence[Split], problems: Sequence[Problem], notes: Sequence[Problem], summary: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what --json writes."""

    def plain(problem: Problem) -> dict[str, Any]:
        return {"file": str(problem.file), "line": problem.line, "kind": problem.kind, "message": problem.message,
                "action": problem.action}  # fmt: skip

    return {
        "images": sum(len(split.samples) for split in splits),
        "boxes": sum(split.boxes for split in splits),
        "problems": [plain(p) for p in problems],
        "counts": dict(Counter(p.kind for p in problems)),
        "notes": [plain(p) for p in notes],
        "note_counts": dict(Counter(p.kind for p in notes)),
        "health": dict(summary),
    }


def _print_findings(title: str, found: Sequence[Problem], most: int, console: Console) -> None:
    """Print a table of the kinds, then the findings of each, at most so many."""
    if not found:
        console.say(f"{title}: none")
        return
    counts = Counter((p.kind, p.action) for p in found).most_common()
    console.table(f"{title}: {len(found)}", ["kind", "count", "what training does"],
                  [[kind, str(count), action] for (kind, action), count in counts])  # fmt: skip
    for (kind, action), count in counts:
        some = [p for p in found if (p.kind, p.action) == (kind, action)][:most]
        console.say(f"{kind}:")
        for problem in some:
            console.say(f"  {problem.place}: {problem.message}")
        if count > len(some):
            console.say(f"  ... and {count - len(some)} more: --all or --json FILE")


def _anchors(splits: Sequence[Split], table: BoxTable, config: Config) -> dict[str, Any] | None:
    """Return how well anchors made from the first split (train) would fit its boxes; None if it has too few."""
    k = len(config.model.code.strides) * config.model.code.anchors_per_level
    wh = torch.from_numpy(table.wh[(table.roles == 0) & table.targets]).float()
    if len(wh) < k:
        return None
    report = kmeans_anchors(wh, k, config.seed, ratio=config.loss.assign.ratio)
    return {"k": k, "role": splits[0].role, "avg_iou": report.avg_iou, "ratio": report.ratio,
            "best_possible_recall": report.best_possible_recall}  # fmt: skip


def _print_health(summary: Mapping[str, Any], console: Console) -> None:
    """Print what the data set is made of."""
    size = f"{summary['imgsz'][0]}x{summary['imgsz'][1]}"
    roles = summary["splits"]
    keys = ["images", "background", "boxes", "small", "medium", "large"]
    console.table(f"splits (small, medium, large: COCO's areas, at {size} px)", ["split", *keys],
                  [[role, *(str(row[key]) for key in keys)] for role, row in roles.items()])  # fmt: skip
    classes = sorted(summary["classes"].items(), key=lambda item: -sum(item[1].values()))
    total = max(1, sum(row["boxes"] for row in roles.values()))
    console.table(
        "boxes by class", ["class", *roles, "share"],
        [[name, *map(str, row.values()), f"{sum(row.values()) / total:.1%}"] for name, row in classes[:CLASSES]],
    )  # fmt: skip
    if len(classes) > CLASSES:
        console.say(f"... and {len(classes) - CLASSES} classes with fewer boxes (all of them with --json FILE)")
    for role in roles:
        if absent := [name for name, row in classes if not row[role]]:
            console.say(
                f"{role} has no box of {len(absent)} classes: {', '.join(absent[:8])}{' ...' * (len(absent) > 8)}"
            )
    aspects = ", ".join(f"{name}: {count / total:.1%}" for name, count in summary["aspects"].items())
    console.say(f"width / height: {aspects}")
    console.table("where the centres lie (share of boxes)", ["", "left", "", "middle", "", "right"], [
        [name, *(f"{share:.1%}" for share in row)]
        for name, row in zip(("top", "", "middle", "", "bottom"), summary["positions"], strict=True)
    ])  # fmt: skip
    fit = summary["anchors"]
    if fit is None:
        console.say("anchors: too few boxes to make any from")
    else:
        console.say(
            f"anchors: {fit['k']} made from {fit['role']} fit with an average IoU of {fit['avg_iou']:.3f}; best "
            f"possible recall {fit['best_possible_recall']:.4f} (sides differ by less than {fit['ratio']:g} x)"
        )
