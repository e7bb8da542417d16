"""``yolite detect``."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolite.commands.common import read_imgsz, settings_of_use
from yolite.console import Console
from yolite.errors import UserError
from yolite.files import check_folder, check_writable, write_json
from yolite.nms import Method
from yolite.paths import free_run_folder
from yolite.predictor import Predictor, Result
from yolite.processes import Processes, join, leave
from yolite.sources import image_paths


def settings_among(sources: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Part ``key=value`` words from sources (a file of that name stays a source).

    Raises:
        UserError: a setting that detection has no use for.
    """
    words = [s for s in sources if re.fullmatch(r"[a-z_.]+=.*", s) and not Path(s).exists()]
    why = "everything but imgsz and device comes from the weights (--conf, --iou and --max-det choose boxes)"
    settings = settings_of_use(words, ["imgsz", "device"], "detect", why)
    return [s for s in sources if s not in words], settings


def picture_paths(out: Path, sources: Sequence[Path]) -> list[Path]:
    """Return where each source's picture goes: its own name, numbered where two sources share one."""
    paths: dict[Path, None] = {}
    for source in sources:
        suffix = source.suffix.lower() if source.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp") else ".jpg"
        path, number = out / f"{source.stem}{suffix}", 2
        while path in paths:
            path, number = out / f"{source.stem}-{number}{suffix}", number + 1
        paths[path] = None
    return list(paths)


def _line(result: Result) -> str:
    """Return what was found on one picture, for people: ``a.jpg 640x480: 2 cat, 1 dog``."""
    if result.error is not None:
        return f"{result.path}: {result.error}"
    counts = Counter(result.names[label] for label in result.labels.tolist())
    height, width = result.detections.size
    found = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
    return f"{result.path} {width}x{height}: {found}"


def _merged(
    processes: Processes, count: int, entries: list[dict[str, Any]], bad: list[str], capped: int
) -> tuple[list[dict[str, Any]], list[str], int]:
    """Put the shares of all processes together: JSON entries in the order of the sources, complaints, capped images."""
    shares = processes.gather((entries, bad, capped))
    iterators = [iter(part) for part, _, _ in shares]
    merged = [next(iterators[number % processes.world]) for number in range(count)]
    return merged, [line for _, part, _ in shares for line in part], sum(number for _, _, number in shares)


def detect_sources(
    sources: Sequence[str], weights: str, conf: float, iou: float, max_det: int, imgsz: Any, batch: int,
    device: str, out: Path | None, json: Path | None, nms: Method,
) -> None:  # fmt: skip
    """Detect on sources, write a picture each and the JSON, print one line each.

    Raises:
        UserError: weights or sources cannot be read, or not one of the images can.
    """
    processes = join()
    console = Console(quiet=not processes.main)
    size = read_imgsz(imgsz)
    paths = image_paths(sources)
    folder = processes.from_main(out or free_run_folder(Path("runs"), "detect"))
    check_folder(folder, "--out")
    if json:
        check_writable(json, "--json")
    places = picture_paths(folder, paths)
    for place in places:
        check_writable(place, "the picture")
    sources_on_disk = {path.resolve() for path in paths}
    if any(path.parent == folder.resolve() for path in sources_on_disk) or (json and json.resolve() in sources_on_disk):
        raise UserError(f"--out {folder} or --json would write over the pictures to be detected on: choose another")
    predictor = Predictor(weights, device, size)
    folder.mkdir(parents=True, exist_ok=True)
    own, own_places = processes.share(paths), processes.share(places)
    entries, bad, capped = [], [], 0
    started = time.monotonic()
    with console.track("detecting") as progress:
        for result, place in zip(predictor.predict(own, conf, iou, max_det, batch, nms), own_places, strict=True):
            entries.append(result.to_json())
            if result.error is not None:
                bad.append(_line(result))
            else:
                capped += result.detections.capped
                result.save(place)
                console.say(_line(result))
            progress(len(entries), len(own))
    entries, bad, capped = _merged(processes, len(paths), entries, bad, capped)
    leave(processes)
    if not processes.main:
        return
    seconds = time.monotonic() - started
    if json:
        write_json(json, {"images": entries})
    if len(bad) == len(paths):
        raise UserError(f"none of the {len(paths)} files could be read as an image (first: {bad[0]})")
    for line in bad:
        console.warn(f"{line}; left out")
    if capped:
        console.warn(f"{capped} images had more than {max_det} boxes: the best {max_det} are kept (--max-det)")
    boxes = sum(len(entry["detections"]) for entry in entries)
    good = len(paths) - len(bad)
    console.say(
        f"{boxes} boxes on {good} images, {len(bad)} unreadable, confidence {conf}, NMS IoU {iou}; "
        f"{good / seconds:.1f} images/s; pictures in {folder}"
    )
