"""A training job of yolite or of a peer, on the same files, turned into a row.

The peer is a program of its own in an environment of its own: DRIVER trains a model by its name and scores it with
pycocotools; its arguments and its JSON are all that is known of it here. Both tools read one copy of the data set in
the YOLO layout, made by ``yolite convert``; the truth that the driver scores by is the same copy as COCO json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from rows import ROOT, Row, add, finished, moment, program, seconds_an_epoch, tool, train

OURS, PEERS = "yolite-n", ("yolov8n", "yolo11n", "yolo26n")
SIZE, BATCH, THREADS = 320, 16, 2

HOLD = """
import os, runpy, sys, torch
count, main, set_threads = int(sys.argv[1]), os.getpid(), torch.set_num_threads
torch.set_num_threads = lambda asked: set_threads(count if os.getpid() == main else asked)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs the driver with as many threads as yolite has: on a CPU the peer's training chooses one less than there are
processors, whatever it was told. Its loader processes are left to choose."""

VERSIONS = """
from importlib.metadata import version
print(", ".join(f"{name} {version(name)}" for name in ("ultralytics", "torch")))
"""


@dataclass(frozen=True)
class Copy:
    """A data set as both tools read it.

    Attributes:
        description: The YAML.
        truth: The validation pictures as COCO json; its file names are those in `images`.
        images: The folder of the validation pictures.
    """

    description: Path
    truth: Path
    images: Path

    def described(self, name: str, **changes: str) -> Copy:
        """Return the same data set by another YAML beside this one, with some roles played by others."""
        path = self.description.with_name(f"{name}.yaml")
        path.write_text(yaml.safe_dump({**yaml.safe_load(self.description.read_text()), **changes}, sort_keys=False))
        return replace(self, description=path)


def make_copy(words: Sequence[str], folder: Path) -> Copy:
    """Convert a data set, named by yolite's own words, into a new folder."""
    root, coco = folder / "yolo", folder / "coco"
    tool("convert", [*words, "--to", "yolo", "--out", str(root)], 1)
    tool("convert", ["--data", str(root / "data.yaml"), "--to", "coco", "--link", "--out", str(coco)], 1)
    copy = Copy(root / "data.yaml", coco / "annotations" / "val.json", root / "images" / "val")
    listed = [image["file_name"] for image in json.loads(copy.truth.read_text())["images"]]
    if sorted(listed) != sorted(path.name for path in copy.images.iterdir()):
        raise SystemExit(f"the names in {copy.truth} are not those of the files in {copy.images}")
    return copy.described("both", path=str(root))  # the peer takes a relative one for a folder of its own


@dataclass(frozen=True)
class Bench:
    """What the jobs of one call have in common.

    Attributes:
        results: The file of the rows.
        python: That of the peer's environment; None: yolite alone.
        driver: The peer's driver.
        threads: Of each training and of each measurement.
        keep: Folder for the trained weights; None: they are thrown away.
    """

    results: Path
    python: Path | None
    driver: Path
    threads: int
    keep: Path | None = None

    def todo(self, jobs: Sequence[Row]) -> list[Row]:
        """Return the jobs that have no row yet and can be run."""
        able = [job for job in jobs if job["model"] == OURS or self.python]
        if len(able) < len(jobs):
            print("no --peer: yolite alone")
        return [job for job in able if not finished(self.results, job)]

    def run(self, job: Row, copy: Copy, cost: bool = True) -> None:
        """Train, measure and write down one job.

        Args:
            job: Its ``model``, ``epochs``, ``imgsz``, ``batch`` and ``seed`` are read here.
            copy: What it is trained on and judged by.
            cost: Whether speed.py measures the network too.
        """
        print("---", *(f"{key}={value}" for key, value in job.items()), flush=True)
        with tempfile.TemporaryDirectory() as name:
            folder, about = Path(name).resolve(), moment(self.threads)
            own = job["model"] == OURS
            row = self._ours(job, copy, folder / "run") if own else self._theirs(job, copy, folder)
            weights = folder / "run" if own else next(folder.rglob("best.pt"))
            more = self._speed(own, weights, copy, job["imgsz"]) if cost else {}
            if self.keep:
                kept = self.keep / "-".join(map(str, job.values()))
                kept.mkdir(parents=True, exist_ok=True)
                shutil.copy(weights / "best.ckpt" if own else weights, kept)
        curve = {"curve": row.pop("curve")}
        add(self.results, {**job, **row, **about, **more, **curve})

    def _ours(self, job: Row, copy: Copy, out: Path) -> Row:
        options = {"model": job["model"], "data": copy.description, **settings(job), "device": "cpu"}
        return train(words(options), out, self.threads)

    def _theirs(self, job: Row, copy: Copy, folder: Path) -> Row:
        """Return the figures of the driver; ``seconds`` are those of its training alone, without its start."""
        out = folder / "result.json"
        options = {"model": job["model"], "data": copy.description, "gt": copy.truth, "images": copy.images,
                   **settings(job), "threads": self.threads, "out": out}  # fmt: skip
        command = [self._python(), "-c", HOLD, str(self.threads), self.driver, *words(options)]
        seconds = program(command, self.threads, env=quiet(folder), cwd=folder)
        found = json.loads(out.read_text())
        curve = [[round(at, 1), round(ap, 4)] for at, ap in found["curve"]]
        return {**{name: found[name] for name in ("AP", "AP50", "AP75")}, "seconds": round(found["train_seconds"], 1),
                "program_seconds": round(seconds, 1), "seconds_an_epoch": round(seconds_an_epoch(curve), 2),
                "curve": curve, "peer": answer([self._python(), "-c", VERSIONS], 1)}  # fmt: skip

    def _speed(self, own: bool, weights: Path, copy: Copy, size: int) -> Row:
        """Return what speed.py measures of a trained network."""
        python, name = (Path(sys.executable), "yolite") if own else (self._python(), "ultralytics")
        command = [python, ROOT / "benchmarks" / "speed.py", name, weights, copy.images, size, self.threads]
        row: Row = json.loads(answer(command, self.threads))
        return row

    def _python(self) -> Path:
        """Return the peer's Python, absolute: not resolved, since a link to it would leave its environment."""
        assert self.python is not None  # todo() has left its jobs out
        return self.python.absolute()


def answer(command: Sequence[object], threads: int) -> str:
    """Return the last line that a program prints."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), **quiet(Path(folder))}
        done = subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[1]}: {done.stderr[-500:]}")
    return done.stdout.splitlines()[-1]


def quiet(folder: Path) -> dict[str, str]:
    """Return the environment in which the peer asks nobody, and leaves its files in ``folder`` alone."""
    return {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(folder), "TMPDIR": str(folder)}


def words(options: Row) -> list[str]:
    """Return options as words of a command line."""
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def settings(job: Row) -> Row:
    """Return those of a job that both tools call alike."""
    return {name: job[name] for name in ("epochs", "imgsz", "batch", "seed")}


def arguments(doc: str | None, results: Path, batch: int = BATCH) -> argparse.ArgumentParser:
    """Return a parser of what both comparisons take."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder with bccd and cards")
    parser.add_argument("--peer", type=Path, help="Python of an environment with the peer; left out: yolite alone")
    parser.add_argument("--driver", type=Path, default=Path("../shared/peers/ultralytics_run.py"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="yolite's; the peers have seed 0")
    parser.add_argument("--epochs", type=int, help="of all jobs [default: as the head says]")
    parser.add_argument("--imgsz", type=int, default=SIZE)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--results", type=Path, default=results, help="file of the rows")
    parser.add_argument("--keep", type=Path, help="folder for the trained weights (speed_accuracy.py reads them)")
    parser.add_argument("--print", action="store_true", dest="table", help="print the table of the rows, run nothing")
    return parser


def bench(given: argparse.Namespace) -> Bench:
    """Return what the arguments ask for.

    Raises:
        SystemExit: the peer or its driver is not there.
    """
    for path in (given.peer, given.driver) if given.peer else ():
        if not path.exists():
            raise SystemExit(f"{path} does not exist: give --peer PYTHON and --driver FILE")
    return Bench(given.results, given.peer, given.driver.resolve(), given.threads, given.keep)
