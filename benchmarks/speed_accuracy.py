"""AP beside pictures a second: what each tool's detection gives at every input size, from one training each.

    python benchmarks/train_vs_peer.py … --only cards yolite-n yolov8n --keep KEPT
    python benchmarks/speed_accuracy.py --shared ../shared/data --on cards --ours KEPT/cards-…/best.ckpt \
        --peer PYTHON --theirs KEPT/cards-…/best.pt [--plot docs/pictures/speed.png]

Both were trained at 320 px. AP is by pycocotools on predictions at confidence 0.001, 100 boxes a picture. Pictures a
second are those of the whole detection by the Python API: from JPEG files (decoding, letterbox, network, NMS) to boxes
at confidence 0.25, warm, in batches of 1 and of 16, with as many threads for both tools (speed.py). The tools and sizes
take turns, five rounds; the median is printed. ``yolite-half`` is ``--half`` (16 bits), where the processor has it.

Time it on an otherwise idle machine. A finished row lies in benchmarks/results/speed_accuracy.json and is not run
again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peer import THREADS, Copy, answer, make_copy, quiet, words
from rows import RESULTS, ROOT, Row, add, finished, moment, program, read
from train_vs_peer import DATA

from yolite.charts import figure, save

SIZES, ROUNDS = (320, 256, 192), 5
TOOLS = ("yolite", "yolite-half", "ultralytics")


def digest(path: Path) -> str:
    """Return what tells one training's weights from another's."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


@dataclass(frozen=True)
class Side:
    """One tool: its weights, and the Python it runs in."""

    tool: str
    weights: Path
    python: Path


def accuracy(side: Side, copy: Copy, size: int, driver: Path, threads: int) -> Row:
    """Return AP and AP50 at an input size."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out.json"
        if side.tool == "ultralytics":
            options = {"weights": side.weights, "gt": copy.truth, "images": copy.images, "imgsz": size,
                       "threads": threads, "out": out}  # fmt: skip
            program([side.python, driver, *words(options)], threads, env=quiet(Path(name)), cwd=name)
        else:
            options = {"weights": side.weights, "data": copy.description, "imgsz": size, "device": "cpu", "json": out}
            half = ["--half"] if side.tool == "yolite-half" else []
            program([side.python, ROOT / "tools" / "evaluate.py", *words(options), *half], threads)
        found = json.loads(out.read_text())
    return {name: found[name] for name in ("AP", "AP50")}


def run(job: Row, side: Side, copy: Copy, driver: Path, threads: int) -> Row:
    """Measure one tool at one size; its AP, which does not change, in the first round alone."""
    print("---", *(f"{key}={value}" for key, value in job.items()), flush=True)
    about = moment(threads)
    judged = accuracy(side, copy, job["imgsz"], driver, threads) if job["round"] == 1 else {}
    speed = [ROOT / "benchmarks" / "speed.py", side.tool, side.weights, copy.images, job["imgsz"], threads, "rates"]
    return {**job, **judged, **json.loads(answer([side.python, *speed], threads)), **about}


def medians(rows: Sequence[Row]) -> list[Row]:
    """Return one row for each data set, tool and size: its AP and the median pictures a second of all rounds."""
    groups: dict[tuple[str, str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["data"], row["tool"], row["weights"], row["imgsz"]), []).append(row)
    out = []
    for (data, tool, _, size), own in groups.items():
        rates = {batch: statistics.median(row["images_per_second"][batch] for row in own) for batch in ("1", "16")}
        judged = next(row for row in own if "AP" in row)
        out.append({"data": data, "tool": tool, "imgsz": size, "AP": judged["AP"], "AP50": judged["AP50"],
                    "rounds": len(own), **rates})  # fmt: skip
    return sorted(out, key=lambda row: (list(DATA).index(row["data"]), TOOLS.index(row["tool"]), -row["imgsz"]))


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    print("| data | tool | input px | AP | AP50 | images/s, one at a time | batches of 16 | rounds |")
    print(f"|{'---|' * 8}")
    for row in medians(rows):
        print(f"| {row['data']} | {row['tool']} | {row['imgsz']} | {row['AP']:.3f} | {row['AP50']:.3f} "
              f"| {row['1']:.0f} | {row['16']:.0f} | {row['rounds']} |")  # fmt: skip


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Draw AP over pictures a second, one at a time, a curve for each tool; the numbers are input sizes."""
    found = medians(rows)
    names = [name for name in DATA if any(row["data"] == name for row in found)]
    fig, axes = figure(5 * len(names), 4, 1, len(names), squeeze=False)
    for data, place in zip(names, axes[0], strict=True):
        for tool in TOOLS:
            own = [row for row in found if (row["data"], row["tool"]) == (data, tool)]
            place.plot([row["1"] for row in own], [row["AP"] for row in own], ".-", label=tool)
            for row in own:
                place.annotate(
                    row["imgsz"], (row["1"], row["AP"]), xytext=(3, 3), textcoords="offset points", fontsize=7
                )
        place.set(title=data, xlabel="images a second, one at a time", ylabel="AP", xlim=(0, None))
        place.grid(alpha=0.3)
        place.legend(fontsize=8)
    save(fig, path)


def main() -> None:
    """Run what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder with bccd and cards")
    parser.add_argument("--on", choices=DATA, default="bccd", help="what both were trained on")
    parser.add_argument("--ours", type=Path, help="yolite's checkpoint")
    parser.add_argument("--theirs", type=Path, help="the peer's weights")
    parser.add_argument("--peer", type=Path, help="Python of an environment with the peer; left out: yolite alone")
    parser.add_argument("--driver", type=Path, default=Path("../shared/peers/ultralytics_run.py"))
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--results", type=Path, default=RESULTS / "speed_accuracy.json", help="file of the rows")
    parser.add_argument("--plot", type=Path, help="draw the rows into this .png")
    given = parser.parse_args()
    here = Path(sys.executable)
    sides = {tool: Side(tool, given.ours.resolve(), here) for tool in TOOLS[:2]} if given.ours else {}
    if given.peer and given.theirs:
        sides["ultralytics"] = Side("ultralytics", given.theirs.resolve(), given.peer.absolute())
    jobs = [
        {
            "data": given.on,
            "tool": tool,
            "weights": digest(sides[tool].weights),
            "imgsz": size,
            "round": number,
            "threads": given.threads,
        }
        for number in range(1, given.rounds + 1)
        for size in SIZES
        for tool in given.tools
        if tool in sides
    ]
    todo = [job for job in jobs if not finished(given.results, job)]
    if todo:
        with tempfile.TemporaryDirectory() as folder:
            copy = make_copy(DATA[given.on].replace("{shared}", str(given.shared)).split(), Path(folder))
            for job in todo:
                add(given.results, run(job, sides[job["tool"]], copy, given.driver.resolve(), given.threads))
    rows = read(given.results)
    show(rows)
    if given.plot:
        plot(given.plot, rows)


if __name__ == "__main__":
    main()
