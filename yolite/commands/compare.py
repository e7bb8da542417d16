"""``yolite compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from yolite.commands.common import settings_of_use
from yolite.console import Console
from yolite.evaluation.compare import Comparison, Difference, PictureChange, compare
from yolite.evaluation.match import MAX_DET
from yolite.evaluation.results import read_results
from yolite.files import check_writable, write_json
from yolite.reading import build_dataset, load_split
from yolite.settings import load_config
from yolite.structures import Sample

PICTURES = 5
"""So many pictures that became better, and worse, are printed; all of them are in the JSON."""
CLASSES = 40
"""So many classes are printed, those that changed most; all of them are in the JSON."""


def compare_results(
    a: Path, b: Path, split: str, options: Mapping[str, Any], words: Sequence[str], json: Path | None
) -> None:
    """Say which classes, sizes and pictures got better or worse from one results file to another.

    Raises:
        UserError: a file or the data cannot be read, or do not belong together.
    """
    why = "nothing is run; only data can be chosen"
    settings_of_use(words, ["data"], "compare", why)
    if json:
        check_writable(json, "--json")
    console = Console()
    config = load_config(None, None, options, words)
    data = load_split(build_dataset(config, console), split, console, need_images=False, need_sizes=False)
    found = [read_results(path, data.samples, data.category_ids) for path in (a, b)]
    with console.track("drawing pictures anew") as progress:
        result = compare(data.samples, found[0], found[1], data.names, config.seed, progress)
    _print(result, a, b, data.samples, console)
    if json:
        write_json(json, _plain(result, data.samples))


def _row(d: Difference) -> list[str]:
    """Return a line of a table."""
    if min(d.a, d.b) < 0:
        return [d.name, str(d.objects), "-", "-", "-", "-", "no object"]
    verdict = ("better" if d.change > 0 else "worse") if d.real else "not told apart"
    return [d.name, str(d.objects), f"{d.a:.3f}", f"{d.b:.3f}", f"{d.change:+.3f}", f"{d.low:+.3f} to {d.high:+.3f}",
            verdict]  # fmt: skip


def _print(result: Comparison, a: Path, b: Path, samples: Sequence[Sample], console: Console) -> None:
    """Print the differences, those of the classes that changed most, and the pictures that did."""
    columns = ["", "objects", "A", "B", "B - A", "95 % of draws", ""]
    first = [d for d in result.differences if d.kind != "class"]
    classes = sorted((d for d in result.differences if d.kind == "class"), key=lambda d: -abs(d.change))
    console.say(f"A: {a}")
    console.say(f"B: {b}")
    console.table(f"AP over IoU 0.5 to 0.95, maxDets {MAX_DET}", columns, [_row(d) for d in first])
    more = f" (the {CLASSES} that changed most of {len(classes)})" if len(classes) > CLASSES else ""
    console.table(f"AP by class{more}", columns, [_row(d) for d in classes[:CLASSES]])
    console.say(
        f"the interval is of {result.resamples} draws of the {len(samples)} pictures with replacement, the same for A "
        "and B; where it holds 0, other pictures could have turned the difference round"
    )
    told = [d for d in classes if d.real]
    if len(classes) > 1 and told:
        console.say(f"of {len(classes)} classes about {0.05 * len(classes):.1f} are told apart by chance alone")
    at = ["-" if c is None else f"{c:.3f}" for c in result.confidence]
    better, worse = (sum(sign * p.better > 0 for p in result.pictures) for sign in (1, -1))
    console.say(
        f"pictures at the confidence of each best F1 (A {at[0]}, B {at[1]}), IoU 0.5, maxDets {MAX_DET}: {better} "
        f"better, {worse} worse, {len(samples) - better - worse} alike"
    )
    for sign, word in ((1, "better"), (-1, "worse")):
        for p in [p for p in result.pictures if sign * p.better > 0][:PICTURES]:
            console.say(f"  {word}: {_name(samples[p.image])}: missed {p.missed[0]} -> {p.missed[1]}, wrong boxes "
                        f"{p.wrong[0]} -> {p.wrong[1]}")  # fmt: skip


def _name(sample: Sample) -> str:
    return str(sample.path or sample.id)


def _plain(result: Comparison, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return what --json writes."""

    def picture(p: PictureChange) -> dict[str, Any]:
        return {"image": _name(samples[p.image]), "missed": list(p.missed), "wrong": list(p.wrong), "better": p.better}

    return {
        "differences": [{**asdict(d), "change": d.change, "real": d.real} for d in result.differences],
        "resamples": result.resamples, "images": len(samples), "confidence": list(result.confidence), "iou": 0.5,
        "max_det": MAX_DET, "pictures": [picture(p) for p in result.pictures],
    }  # fmt: skip
