"""What yolite's parts cost beside others': postprocess, anchors, evaluation, start, memory of training.

    python benchmarks/primitives.py --shared ../shared/data --peer PYTHON
    python benchmarks/primitives.py --only anchors evaluation --repeats 1

PYTHON is that of an environment with ultralytics, a separate program; left out: yolite and the libraries it stands on.
Each figure is the median of so many repeats, each a program of its own; the tools take turns. A finished row lies in
benchmarks/results/primitives.json and is not measured again.

* ``postprocess``: raw maps of 1k, 10k and 100k predictions with 80 classes to boxes (primitive_postprocess.py);
* ``anchors``: k-means on the boxes of COCO val2017 and on a million made ones (primitive_anchors.py);
* ``evaluation``: the COCO metric of 5,000 pictures with 100 boxes each, from files (primitive_evaluation.py);
* ``start``: ``import``, and the help of the command line;
* ``memory``: the most memory that one epoch on BCCD (320 px, batches of 16) has at a time, all processes together;
  pages that several share count once (PSS).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from memory import most_memory
from peer import HOLD, THREADS, Copy, answer, make_copy, quiet, words
from rows import RESULTS, ROOT, Row, add, finished, moment, program, read

TOOLS = {
    "postprocess": ("yolite", "torchvision", "ultralytics"),
    "anchors": ("yolite", "scikit-learn"),
    "evaluation": ("yolite", "pycocotools"),
    "start": ("yolite", "ultralytics"),
    "memory": ("yolite", "ultralytics"),
}
JOBS: dict[str, list[Row]] = {
    "postprocess": [{"predictions": n, "conf": conf} for n in ("1k", "10k", "100k") for conf in (0.25, 0.001)],
    "anchors": [{"boxes": "COCO val2017"}, {"boxes": "made"}],
    "evaluation": [{}],
    "start": [{"what": what} for what in ("import", "import to detect", "help")],
    "memory": [{}],
}
IMPORTS = {
    ("yolite", "import"): "import yolite",
    ("yolite", "import to detect"): "from yolite import Predictor",
    ("ultralytics", "import"): "import ultralytics",
    ("ultralytics", "import to detect"): "from ultralytics import YOLO",
}
BCCD = ("data.train=trainval", "data.val=test")


class Parts:
    """How each part is measured once.

    Args:
        given: The arguments of the program.
        folder: For the files that several measurements share.
    """

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.threads, self.shared, self.peer, self.driver = given.threads, given.shared, given.peer, given.driver
        self.folder = folder
        self.copy: Copy | None = None

    def _python(self, tool: str) -> Path:
        return self.peer.absolute() if tool == "ultralytics" else Path(sys.executable)

    def _made(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return a file of this name, made at its first use."""
        path = self.folder / name
        if not path.exists():
            make(path)
        return path

    def _answer(self, tool: str, script: str, *more: object) -> Row:
        row: Row = json.loads(answer([self._python(tool), ROOT / "benchmarks" / script, *more], self.threads))
        return row

    def postprocess(self, tool: str, job: Row, folder: Path) -> Row:
        """Time one postprocess; the boxes it leaves stay in the row until they are compared."""
        import torch
        from primitive_postprocess import INPUT, made

        size = INPUT[job["predictions"]]
        maps = self._made(f"{size}.pt", lambda path: torch.save(made(size), path))
        return self._answer(tool, "primitive_postprocess.py", maps, tool, job["conf"])

    def anchors(self, tool: str, job: Row, folder: Path) -> Row:
        """Cluster once."""
        boxes = "made" if job["boxes"] == "made" else self.shared.resolve() / "boxes" / "coco_val2017.json"
        return self._answer(tool, "primitive_anchors.py", tool, boxes)

    def evaluation(self, tool: str, job: Row, folder: Path) -> Row:
        """Judge once."""
        from primitive_evaluation import make

        truth = self._made("truth.json", lambda path: make(path, self.folder / "results.json"))
        return self._answer(tool, "primitive_evaluation.py", tool, truth, self.folder / "results.json")

    def start(self, tool: str, job: Row, folder: Path) -> Row:
        """Start a program once."""
        python = self._python(tool)
        if job["what"] != "help":
            command = [python, "-c", IMPORTS[tool, job["what"]]]
        else:
            command = [python, "-m", "yolite", "--help"] if tool == "yolite" else [python.with_name("yolo"), "help"]
        kept = self.folder / "settings"  # of the peer, who makes them at its first start
        kept.mkdir(exist_ok=True)
        env = {**quiet(kept), "PYTHONPATH": str(ROOT)}
        both = [program(command, self.threads, env=env, cwd=folder, stdout=subprocess.DEVNULL) for _ in range(2)]
        return {"seconds": both[1]}  # not the first: the files were not in memory yet

    def memory(self, tool: str, job: Row, folder: Path) -> Row:
        """Train one epoch."""
        if self.copy is None:
            self.copy = make_copy(["--data", str(self.shared / "bccd"), *BCCD], self.folder)
        options = {"data": self.copy.description, "epochs": 1, "imgsz": 320, "batch": 16, "seed": 0}
        command: list[object]
        if tool == "yolite":
            options |= {"device": "cpu", "out": folder / "run"}
            command = [sys.executable, ROOT / "tools" / "train.py", *words(options)]
        else:
            options |= {"model": "yolov8n", "gt": self.copy.truth, "images": self.copy.images,
                        "threads": self.threads, "out": folder / "result.json"}  # fmt: skip
            command = [self._python(tool), "-c", HOLD, self.threads, self.driver.resolve(), *words(options)]
        how = {"env": quiet(folder), "cwd": folder, "stdout": subprocess.DEVNULL}
        return most_memory(lambda: program(command, self.threads, **how))


def same(found: list[list[float]], ours: list[list[float]]) -> float:
    """Return the share of boxes that are there on both sides: class, IoU above 0.99, score within 0.001."""
    import torch

    from yolite.boxes import pairwise_iou

    a, b = (torch.tensor(boxes, dtype=torch.float64).reshape(-1, 6) for boxes in (found, ours))
    equal = (pairwise_iou(a[:, :4], b[:, :4]) > 0.99) & (a[:, None, 5] == b[:, 5])
    equal &= (a[:, None, 4] - b[:, 4]).abs() < 0.001
    return float(equal.any(1).sum()) / max(len(a), len(b), 1)


def middle(rows: list[Row]) -> Row:
    """Return a row of medians; what is no number is that of the first."""
    numbers = [name for name, value in rows[0].items() if isinstance(value, (int, float))]
    return {**rows[0], **{name: statistics.median(row[name] for row in rows) for name in numbers}}


def measure(parts: Parts, job: Row, tools: list[str], repeats: int) -> list[Row]:
    """Return a row for each tool."""
    about, found = moment(parts.threads), {tool: list[Row]() for tool in tools}
    for number in range(repeats):
        for tool in tools:
            print("---", *job.values(), tool, f"{number + 1}/{repeats}", flush=True)
            with tempfile.TemporaryDirectory() as name:
                found[tool].append(getattr(parts, job["part"])(tool, job, Path(name).resolve()))
    rows = {tool: middle(each) for tool, each in found.items()}
    if job["part"] == "postprocess":
        boxes = {tool: row.pop("found") for tool, row in rows.items()}
        for tool, row in rows.items():
            row.update(boxes=len(boxes[tool]), same=round(same(boxes[tool], boxes["yolite"]), 4))
    return [{**job, "tool": tool, "repeats": repeats, **row, **about} for tool, row in rows.items()]


def table(title: list[str], lines: list[list[str]]) -> None:
    """Print one table, or nothing where nothing was measured."""
    if lines:
        print(f"\n| {' | '.join(title)} |\n|{'---|' * len(title)}")
        for line in lines:
            print(f"| {' | '.join(line)} |")


def show(rows: list[Row]) -> None:
    """Print the tables."""
    by = {part: [row for row in rows if row["part"] == part] for part in JOBS}
    table(["predictions", "confidence", "tool", "ms, all", "of which decoding", "boxes", "the same as yolite's"], [
        [r["predictions"], str(r["conf"]), r["tool"], f"{r['ms'] + r['decode_ms'] - r['copy_ms']:.1f}",
         f"{r['decode_ms']:.1f}" if r["tool"] != "yolite" else "", str(r["boxes"]), f"{r['same']:.1%}"]
        for r in by["postprocess"]])  # fmt: skip
    table(["boxes", "tool", "seconds", "average IoU"], [
        [r["boxes"] if r["boxes"] != "made" else "a million, made", r["tool"], f"{r['seconds']:.1f}",
         f"{r['avg_iou']:.3f}"] for r in by["anchors"]])  # fmt: skip
    table(["tool", "seconds", "truth", "detections", "metric", "AP", "the 12 numbers"], [
        [r["tool"], f"{r['seconds']:.1f}", *(f"{value:.1f}" for value in r["parts"].values()),
         f"{r['numbers'][0]:.6f}",
         "the same bits" if r["numbers"] == by["evaluation"][0]["numbers"] else "others"]
        for r in by["evaluation"]])  # fmt: skip
    table(["what", "tool", "seconds"], [[r["what"], r["tool"], f"{r['seconds']:.2f}"] for r in by["start"]])
    table(["tool", "GB", "GB, shared pages in full", "processes"], [
        [r["tool"], f"{r['gb']:.2f}", f"{r['gb_rss']:.2f}", f"{r['processes']:.0f}"]
        for r in by["memory"]])  # fmt: skip


def main() -> None:
    """Measure what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder with boxes and bccd")
    parser.add_argument("--peer", type=Path, help="Python of an environment with ultralytics")
    parser.add_argument("--driver", type=Path, default=Path("../shared/peers/ultralytics_run.py"))
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--results", type=Path, default=RESULTS / "primitives.json")
    parser.add_argument("--print", action="store_true", dest="table", help="print the tables of the rows, run nothing")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        parts = Parts(given, Path(name).resolve())
        for part in [] if given.table else given.only:
            tools = [tool for tool in TOOLS[part] if given.peer or tool != "ultralytics"]
            for job in ({"part": part, **job} for job in JOBS[part]):
                if not all(finished(given.results, {**job, "tool": tool}) for tool in tools):
                    for row in measure(parts, job, tools, given.repeats):
                        if not finished(given.results, {**job, "tool": row["tool"]}):
                            add(given.results, row)
    show(read(given.results))


if __name__ == "__main__":
    main()
