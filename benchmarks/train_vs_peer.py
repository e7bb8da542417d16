"""yolite-n and a peer's small models, trained from scratch on the same pictures: AP, seconds, seconds to an AP, cost.

    python benchmarks/train_vs_peer.py --shared ../shared/data --peer PYTHON [--only bccd yolite-n] [--short 20]

PYTHON is that of an environment with ultralytics and pycocotools, whose program --driver calls. What is equal: the
files (one copy, see peer.py), the input size, the batch, the epochs, the threads, the judge: pycocotools on predictions
at confidence 0.001, 100 boxes an image, of the epoch that each tool itself finds best on these same pictures. All else
is each tool's own default. yolite has three seeds, each peer one, and they take turns; run it on an otherwise idle
machine. Epochs: 50; digits 16, which is what yolite's own recipe gives it.

--short N trains yolite for N epochs too: a schedule made for few epochs reaches an AP sooner than a long one does on
its way. Each finished row, with the day and a calibration time, is appended to benchmarks/results/train_vs_peer.json
and is not run again: the table grows over days, and what is killed goes on where it stopped. Seconds are those of the
whole program for yolite and of training alone for the peer; seconds to an AP count from the start of the program.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from peer import OURS, PEERS, arguments, bench, make_copy
from rows import RESULTS, Row, by_seed, read

DATA = {
    "digits": "--data digits",
    "bccd": "--data {shared}/bccd data.train=trainval data.val=test",
    "cards": "--data {shared}/cards",
}
EPOCHS = {"digits": 16, "bccd": 50, "cards": 50}
REFERENCE = "yolov8n"
"""The peer whose final AP the others' time is measured to."""


def jobs_of(data: str, given: argparse.Namespace) -> list[Row]:
    """Return the jobs of a data set in the order in which they are run: the tools take turns, short ones last."""
    common = {"data": data, "imgsz": given.imgsz, "batch": given.batch, "threads": given.threads}
    epochs = given.epochs or EPOCHS[data]
    ours = [{**common, "model": OURS, "epochs": epochs, "seed": seed} for seed in given.seeds]
    theirs = [{**common, "model": peer, "epochs": epochs, "seed": 0} for peer in PEERS]
    turns = [job for pair in zip_longest(ours, theirs) for job in pair if job]
    turns += [{**job, "epochs": short} for short in given.short for job in ours]
    models = [name for name in given.only if name not in DATA]
    return [job for job in turns if not models or job["model"] in models]


def reached(curve: Sequence[Sequence[float]], ap: float) -> float | None:
    """Return the seconds at which an AP was first reached; None: never."""
    return next((seconds for seconds, reached in curve if reached >= ap), None)


def time_to(rows: Sequence[Row], ap: float | None) -> str:
    """Return the median seconds in which the seeds reached an AP, for people."""
    if ap is None:
        return ""
    times = [seconds for row in rows if (seconds := reached(row["curve"], ap)) is not None]
    missing = f" ({len(times)} of {len(rows)} seeds)" if len(times) < len(rows) else ""
    return f"{statistics.median(times):.0f}{missing}" if times else "never"


def line(rows: Sequence[Row], ap: float | None) -> str:
    """Return one row of the table: all seeds of a model."""
    first = rows[0]
    typical = {name: statistics.median(row[name] for row in rows) for name in ("seconds", "seconds_an_epoch")}
    last = statistics.fmean(row["AP_last"] for row in rows) if "AP_last" in first else None
    costs = [
        " / ".join(f"{statistics.median(row[name][key] for row in rows):{form}}" for key in first[name])
        for name, form in (("forward_ms", ".1f"), ("images_per_second", ".0f"))
    ]
    cells = [
        first["data"], first["model"], first["epochs"], *by_seed(rows),
        f"{statistics.fmean(row['AP50'] for row in rows):.3f}", "" if last is None else f"{last:.3f}",
        f"{typical['seconds']:.0f}", f"{typical['seconds_an_epoch']:.1f}",
        time_to(rows, ap) if first["model"] == OURS else "", f"{first['parameters'] / 1e6:.2f}", *costs,
        f"{statistics.median(row['calibration_ms'] for row in rows):.1f}", first["threads"],
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def show(rows: Sequence[Row]) -> None:
    """Print the table; what differs in more than the seed stands in rows of its own."""
    titles = ["data", "model", "epochs", "AP by seed", "mean", "spread", "AP50", "AP, last epoch", "seconds",
              "s an epoch", f"s to {REFERENCE}'s AP", "M parameters", "forward ms, 320 / 640 px",
              "images/s, batches of 1 / 16", "calibration ms", "threads"]  # fmt: skip
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for data in DATA:
        own = [row for row in rows if row["data"] == data]
        final = [row for row in own if row["model"] == REFERENCE]
        ap = max(final, key=lambda row: row["epochs"])["AP"] if final else None
        groups: dict[tuple[object, ...], list[Row]] = {}
        for row in own:
            key = tuple(row[name] for name in ("model", "epochs", "imgsz", "batch", "threads"))
            groups.setdefault(key, []).append(row)
        order = (OURS, *PEERS)
        for key in sorted(groups, key=lambda key: (order.index(str(key[0])), key[1:])):
            print(line(groups[key], ap))


def main() -> None:
    """Run what is missing, print what is there."""
    parser = arguments(__doc__, RESULTS / "train_vs_peer.json")
    names = [*DATA, OURS, *PEERS]
    parser.add_argument("--only", nargs="+", choices=names, default=[], help="data sets and models [default: all]")
    parser.add_argument("--short", type=int, nargs="+", default=[], metavar="N", help="epochs of yolite's short runs")
    given = parser.parse_args()
    work = bench(given)
    named = [name for name in given.only if name in DATA]
    for data in () if given.table else named or DATA:
        if not (todo := work.todo(jobs_of(data, given))):
            continue
        with tempfile.TemporaryDirectory() as folder:
            copy = make_copy(DATA[data].replace("{shared}", str(given.shared)).split(), Path(folder))
            for job in todo:
                work.run(job, copy)
    show(read(given.results))


if __name__ == "__main__":
    main()
