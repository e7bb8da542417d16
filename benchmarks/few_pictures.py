"""How much is learned from few pictures: yolite-n and a peer from 10, 30 and 100 photographs of BCCD, from scratch.

    python benchmarks/few_pictures.py --shared ../shared/data --peer PYTHON [--only 10 yolite-n]

The pictures are the first 10, 30 and 100 of one draw from the list trainval, so that the smaller sets lie in the
larger ones; both tools read the same list, and are judged on all 72 photographs of the list test. Everything else is as
in train_vs_peer.py, whose arguments these are; yolite has three seeds, yolov8n one.

The batch is 10, which divides all three. Epochs, the same for both: 300, 150 and 80. That is 3,000, 4,500 and 8,000
pictures shown in 300, 450 and 800 steps, less than the 14,600 pictures of 50 epochs on all 292: few pictures are soon
known by heart, but a tool needs some hundred steps whatever it is shown. A finished row lies in
benchmarks/results/few_pictures.json and is not run again.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from peer import OURS, Copy, arguments, bench, make_copy
from rows import RESULTS, Row, by_seed, read

DATA = "--data {shared}/bccd data.train=trainval data.val=test"
EPOCHS = {10: 300, 30: 150, 100: 80}
BATCH = 10
MODELS = (OURS, "yolov8n")


def drawn(copy: Copy, pictures: int) -> Copy:
    """Return the same data set with so many training pictures, by a list that both tools read."""
    root = copy.description.parent
    names = sorted(path.name for path in (root / "images" / "train").iterdir())
    random.Random(0).shuffle(names)
    (root / f"train-{pictures}.txt").write_text("".join(f"./images/train/{name}\n" for name in names[:pictures]))
    return copy.described(f"few-{pictures}", train=f"train-{pictures}.txt")


def jobs_of(pictures: int, given: argparse.Namespace) -> list[Row]:
    """Return the jobs with so many pictures, the tools in turn."""
    common = {"data": "bccd", "pictures": pictures, "epochs": given.epochs or EPOCHS[pictures], "imgsz": given.imgsz,
              "batch": given.batch, "threads": given.threads}  # fmt: skip
    ours = [{**common, "model": OURS, "seed": seed} for seed in given.seeds]
    theirs = [{**common, "model": model, "seed": 0} for model in MODELS[1:]]
    models = [name for name in given.only if name in MODELS] or MODELS
    return [job for pair in zip_longest(ours, theirs) for job in pair if job and job["model"] in models]


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    print(
        "| pictures | model | epochs | AP by seed | mean | spread | AP50 | AP, last epoch | seconds | calibration ms |"
    )
    print(f"|{'---|' * 10}")
    groups: dict[tuple[int, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["pictures"], row["epochs"], row["model"]), []).append(row)
    for (pictures, epochs, model), own in sorted(groups.items(), key=lambda group: group[0]):
        last = f"{statistics.fmean(row['AP_last'] for row in own):.3f}" if "AP_last" in own[0] else ""
        middle = {name: statistics.median(row[name] for row in own) for name in ("seconds", "calibration_ms")}
        print(f"| {pictures} | {model} | {epochs} | {' | '.join(by_seed(own))} "
              f"| {statistics.fmean(row['AP50'] for row in own):.3f} | {last} | {middle['seconds']:.0f} "
              f"| {middle['calibration_ms']:.1f} |")  # fmt: skip


def main() -> None:
    """Run what is missing, print what is there."""
    parser = arguments(__doc__, RESULTS / "few_pictures.json", BATCH)
    names = [*map(str, EPOCHS), *MODELS]
    parser.add_argument("--only", nargs="+", choices=names, default=[], help="numbers of pictures, models")
    given = parser.parse_args()
    work = bench(given)
    counts = [count for count in EPOCHS if str(count) in given.only] or list(EPOCHS)
    todo = [] if given.table else work.todo([job for count in counts for job in jobs_of(count, given)])
    if todo:
        with tempfile.TemporaryDirectory() as folder:
            copy = make_copy(DATA.replace("{shared}", str(given.shared)).split(), Path(folder))
            for job in todo:
                work.run(job, drawn(copy, job["pictures"]), cost=False)
    show(read(given.results))


if __name__ == "__main__":
    main()
