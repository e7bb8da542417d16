"""What imported weights are worth: yolo-fastest-1.1-xl, fine-tuned and from random weights, by the same command.

    python benchmarks/finetune.py --shared ../shared/data [--only course quarter coco128] [-- key=value ...]

``course``: 20 epochs on BCCD from either start, one seed, by its course. ``quarter``: on BCCD and on cards, 12 epochs
from the imported weights against 48 from random ones. ``coco128``: the weights as imported, judged on coco128's
validation pictures, and after 5 epochs on its 128 training pictures, in which the head alone learns, at a small rate
and without mosaic, since the pictures and the classes are of the kind that the weights have seen.

The start is the .weights file, or weights drawn at random for the same .cfg; AP is that of the last epoch, which
nothing was chosen by. ``key=value`` words are settings for every run that is asked for (for coco128 in place of its
own), and part of its row. A finished row lies in benchmarks/results/finetune.json and is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from peer import BATCH, THREADS
from rows import RESULTS, Row, add, by_seed, finished, moment, read, tool, train

from yolite.build import build_preprocess
from yolite.checkpoint import describe, save_checkpoint
from yolite.commands.darknet import import_model, load_network
from yolite.config import to_plain
from yolite.models.detector import initialise

MODEL = "darknet/yolo-fastest-1.1/yolo-fastest-1.1-xl"
DATA = {
    "bccd": "--data {shared}/bccd data.train=trainval data.val=test",
    "cards": "--data {shared}/cards",
    "coco128": "--data {shared}/coco128",
}
GENTLE = "train.transfer=head train.lr=0.0001 augment.mosaic=0"
SHORT, LONG, COURSE, GENTLY = 12, 48, 20, 5
KINDS = ("course", "quarter", "coco128")


def jobs_of(kind: str, given: argparse.Namespace) -> list[Row]:
    """Return the jobs of a kind: its data, start, epochs (0: judged as imported), seed, batch and settings."""
    if kind == "course":
        runs = [("bccd", start, COURSE, 0, "") for start in ("imported", "random")]
    elif kind == "quarter":
        both = (("imported", SHORT), ("random", LONG))  # the short ones first
        runs = [(data, *run, seed, "") for run in both for seed in given.seeds for data in ("bccd", "cards")]
    else:
        gentle = "" if given.words else GENTLE
        runs = [("coco128", "imported", GENTLY, seed, gentle) for seed in given.seeds]
    jobs: list[Row] = [
        {"kind": kind, "data": data, "start": start, "epochs": given.epochs or epochs, "seed": seed, "batch": BATCH,
         "words": [*words.split(), *given.words]}
        for data, start, epochs, seed, words in runs
    ]  # fmt: skip
    as_imported = {"kind": kind, "data": "coco128", "start": "imported", "epochs": 0}
    return [as_imported, *jobs] if kind == "coco128" else jobs


def checkpoint(start: str, seed: int, shared: Path, folder: Path) -> Path:
    """Write the checkpoint that a run starts from; random weights are drawn from the seed."""
    cfg, out = shared / f"{MODEL}.cfg", folder / f"{start}.ckpt"
    if start == "imported":
        import_model(cfg, cfg.with_suffix(".weights"), shared / "darknet" / "coco.names", out)
    else:
        network, config, detector = load_network(cfg)
        initialise(detector, seed, config.model.init)
        names = [str(number) for number in range(network.classes)]
        content = describe(detector, build_preprocess(config), names, to_plain(config))
        save_checkpoint(out, {**content, "weights": detector.state_dict(), "ema": None})
    return out


def run(job: Row, given: argparse.Namespace) -> Row:
    """Train, or judge what was imported; return the finished row."""
    print("---", *(f"{key}={value}" for key, value in job.items()), flush=True)
    about = moment(given.threads)
    with tempfile.TemporaryDirectory() as name:
        weights = checkpoint(job["start"], job.get("seed", 0), given.shared, Path(name))
        words = [*DATA[job["data"]].replace("{shared}", str(given.shared)).split(), "--weights", str(weights)]
        if job["epochs"]:
            words += ["--epochs", str(job["epochs"]), "--seed", str(job["seed"]), "--batch", str(job["batch"])]
            figures = train([*words, "--device", "cpu", *job["words"]], Path(name) / "run", given.threads)
        else:
            out = Path(name) / "found.json"
            tool("evaluate", [*words, "--device", "cpu", "--json", str(out)], given.threads)
            found = json.loads(out.read_text())
            figures = {"AP_last": found["AP"], "AP50_last": found["AP50"]}
    return {**job, **about, **figures}


def show_course(rows: Sequence[Row]) -> None:
    """Print the AP after every fifth epoch, or nothing."""
    if not rows:
        return
    at = range(5, COURSE + 1, 5)
    print(f"| weights at the start | settings | AP after {' | '.join(map(str, at))} epochs | AP50 |")
    print(f"|---|---|{'---|' * len(at)}---|")
    for row in rows:
        course = " | ".join(f"{row['curve'][epoch - 1][1]:.3f}" for epoch in at if epoch <= row["epochs"])
        print(f"| {row['start']} | {' '.join(row['words'])} | {course} | {row['AP50_last']:.3f} |")


def show(rows: Sequence[Row]) -> None:
    """Print the AP after the last epoch, all seeds of a run in one row."""
    print("| data | weights at the start | epochs | settings | AP by seed | mean | spread | AP50 |")
    print(f"|{'---|' * 8}")
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        key = (row["data"], row["start"], str(row["epochs"] or "as imported"), " ".join(row.get("words", [])))
        groups.setdefault(key, []).append(row)
    for cells, own in groups.items():
        ap50 = statistics.fmean(row["AP50_last"] for row in own)
        print(f"| {' | '.join((*cells, *by_seed(own, 'AP_last')))} | {ap50:.3f} |")


def main() -> None:
    """Run what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder of all data")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of quarter and coco128")
    parser.add_argument("--epochs", type=int, help="of all trainings [default: as the head says]")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--results", type=Path, default=RESULTS / "finetune.json", help="file of the rows")
    parser.add_argument("--print", action="store_true", dest="table", help="print the tables of the rows, run nothing")
    parser.add_argument("words", nargs="*", help="settings of every run, key=value (after --)")
    given = parser.parse_args()
    for job in [] if given.table else [job for kind in given.only for job in jobs_of(kind, given)]:
        if not finished(given.results, job):
            add(given.results, run(job, given))
    rows = read(given.results)
    show_course([row for row in rows if row["kind"] == "course"])
    print()
    show([row for row in rows if row["kind"] != "course"])


if __name__ == "__main__":
    main()
