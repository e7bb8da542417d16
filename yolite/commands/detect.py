"""``yolite detect``."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yolite.commands.found import Findings, Tally, places_of
from yolite.console import Console
from yolite.errors import UserError
from yolite.files import check_folder, check_writable, write_json
from yolite.paths import free_run_folder
from yolite.predictor import Predictor
from yolite.processes import Processes, join, leave
from yolite.result import Result
from yolite.sources import Item, Moving, require_items
from yolite.video import VideoFile


def settings_among(sources: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Part ``key=value`` words from sources (a file of that name stays a source).

    Raises:
        UserError: a setting that detection has no use for.
    """
    words = [s for s in sources if re.fullmatch(r"[a-z_.]+=.*", s) and not Path(s).exists()]
    if not words:
        return list(sources), {}
    from yolite.commands.common import settings_of_use  # the configuration is slow to import

    why = "everything but imgsz and device comes from the weights (--conf, --iou and --max-det choose boxes)"
    settings = settings_of_use(words, ["imgsz", "device"], "detect", why)
    return [s for s in sources if s not in words], settings


def _check_places(folder: Path, items: Sequence[Item], places: Mapping[str, Path], json: Path | None) -> None:
    """Refuse outputs that cannot be written or would replace a source.

    Raises:
        UserError: one of these.
    """
    check_folder(folder, "--out")
    if json:
        check_writable(json, "--json")
    for place in places.values():
        check_writable(place, "the picture")
    on_disk = {item.content.resolve() for item in items if isinstance(item.content, Path)}
    if any(path.parent == folder.resolve() for path in on_disk) or (json and json.resolve() in on_disk):
        raise UserError(f"--out {folder} or --json would write over the pictures to be detected on: choose another")


def _frames(item: Item, stride: int) -> int:
    """Return how many results a source will give, as far as it says; 0: unknown."""
    if not isinstance(item, Moving):
        return 1
    return -(-VideoFile(item.content).frames // stride) if isinstance(item.content, Path) else 0


def _follow(results: Iterator[Result], found: Findings, items: Sequence[Item], stride: int, console: Console) -> None:
    """Take every result, with a progress bar."""
    counts = [_frames(item, stride) for item in items]
    total = sum(counts) if all(counts) else 0
    started, kind = time.monotonic(), "frames" if any(isinstance(item, Moving) for item in items) else "images"
    try:
        with console.bar() as progress:
            for done, result in enumerate(results, 1):
                found.take(result)
                rate = done / max(1e-9, time.monotonic() - started)
                progress(f"{Path(result.source).name} {rate:.1f} {kind}/s", done, total)
    finally:
        found.close()


def _merged(processes: Processes, count: int, own: Tally) -> Tally:
    """Put the shares of all processes together; JSON entries in the order of the sources."""
    shares = processes.gather(own)
    iterators = [iter(share.entries) for share in shares]
    together = Tally(bad=[line for share in shares for line in share.bad])
    if sum(len(share.entries) for share in shares) == count:  # none of the sources is a video
        together.entries = [next(iterators[number % processes.world]) for number in range(count)]
    for name in ("pictures", "frames", "broken", "boxes", "capped"):
        setattr(together, name, sum(getattr(share, name) for share in shares))
    return together


def _write_json(json: Path, lines: bool, entries: list[dict[str, Any]], processes: Processes) -> None:
    """Write the one JSON, or put the lines of all processes into one file."""
    if not lines:
        write_json(json, {"images": entries})
        return
    with json.open("wb") as whole:
        for rank in range(processes.world):
            part = _part(json, rank)
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole)
            part.unlink()


def _part(json: Path, rank: int) -> Path:
    return json.with_name(f"{json.name}.part{rank}")


def detect_sources(
    sources: Sequence[str], weights: str, how: Mapping[str, Any], imgsz: Any, device: str, half: bool,
    out: Path | None, json: Path | None,
) -> None:  # fmt: skip
    """Detect on sources, write pictures and videos with boxes and the JSON, print one line each.

    Args:
        sources: See `yolite.sources.items_of`.
        weights: What `yolite.weights.open_model` opens.
        how: Arguments of `Predictor.predict`.
        imgsz: As typed, or None.
        device: As typed.
        half: Whether to compute in 16 bits.
        out: Folder for the pictures and videos; None: a free runs/detect-N.
        json: For pictures alone one JSON; with a video, or named .jsonl, a line for every picture or frame.

    Raises:
        UserError: weights or sources cannot be read, or not one of the sources can.
    """
    processes = join()
    console = Console(quiet=not processes.main)
    size = None
    if imgsz is not None:
        from yolite.commands.common import read_imgsz

        size = read_imgsz(imgsz)
    items = require_items(sources)
    folder = processes.from_main(out or free_run_folder(Path("runs"), "detect"))
    places = places_of(folder, items)
    _check_places(folder, items, places, json)
    predictor = Predictor(weights, device, size, half)
    _make(folder, exist_ok=out is not None or processes.world > 1)
    own = processes.share(items)
    lines = json is not None and (json.suffix == ".jsonl" or any(isinstance(item, Moving) for item in items))
    started = time.monotonic()
    mine = (json if processes.world == 1 else _part(json, processes.rank)) if json and lines else None
    if mine:
        mine.parent.mkdir(parents=True, exist_ok=True)
    found = Findings(own, places, mine, how["stride"], console)
    _follow(predictor.predict(own, **how), found, own, how["stride"], console)
    tally = _merged(processes, len(items), found.tally)
    leave(processes)
    if not processes.main:
        return
    if json and not (lines and processes.world == 1):
        _write_json(json, lines, tally.entries, processes)
    _summary(tally, len(items), how, time.monotonic() - started, folder, console)


def _make(folder: Path, exist_ok: bool) -> None:
    """Make the folder of the pictures.

    Raises:
        UserError: another program has made it since it was chosen; its pictures would be written over.
    """
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        raise UserError(f"{folder} has just been made by another program: start again, or give --out") from None


def _summary(
    tally: Tally, sources: int, how: Mapping[str, Any], seconds: float, folder: Path, console: Console
) -> None:
    """Say what came of it.

    Raises:
        UserError: nothing could be read.
    """
    if len(tally.bad) == sources:
        raise UserError(f"none of the {sources} files could be read as an image or video (first: {tally.bad[0]})")
    for line in tally.bad:
        console.warn(f"{line}; left out")
    if tally.capped:
        most = how["max_det"]
        console.warn(f"{tally.capped} images had more than {most} boxes: the best {most} are kept (--max-det)")
    frames = f", {tally.frames} frames ({tally.broken} broken)" if tally.frames else ""
    console.say(
        f"{tally.boxes} boxes on {tally.pictures} images{frames}, {len(tally.bad)} unreadable, confidence "
        f"{how['conf']}, NMS IoU {how['iou']}; {(tally.pictures + tally.frames) / seconds:.1f} images/s; "
        f"pictures in {folder}"
    )
