"""What a change of the recipe gives: yolite-n trained with some settings, on some data sets, with some seeds.

    python benchmarks/recipe.py --shared ../shared/data --name "no mosaic" [--on bccd cards] -- augment.mosaic=0
    python benchmarks/recipe.py --print

What stands behind ``--`` is given to ``yolite train`` as it is (settings, ``--model FILE``); NAME is what the table
calls it. Each seed's run is a row of benchmarks/results/recipe.json with the commit it ran on and is not run again;
several calls may run beside each other, as AP alone is compared. docs/research-log.md says what was expected of each.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from peer import BATCH, SIZE
from rows import RESULTS, Row, add, by_seed, finished, machine, read, train
from train_vs_peer import DATA


def show(rows: Sequence[Row]) -> None:
    """Print AP by seed: of the best epoch, and the mean of the last; what was tried on one set stands together."""
    print("| data | epochs | recipe | AP by seed | mean | spread | AP50 | AP, last epoch |")
    print(f"|{'---|' * 8}")
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["data"], row["epochs"], row["name"]), []).append(row)
    for (data, epochs, name), own in sorted(groups.items(), key=lambda group: group[0][:2]):
        ap50, last = (statistics.fmean(row[key] for row in own) for key in ("AP50", "AP_last"))
        print(f"| {data} | {epochs} | {name} | {' | '.join(by_seed(own))} | {ap50:.3f} | {last:.3f} |")


def main() -> None:
    """Run what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder of all data")
    parser.add_argument("--name", help="of the recipe, for the table")
    parser.add_argument("--on", nargs="+", choices=DATA, default=["bccd", "cards"], help="data sets")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS / "recipe.json", help="file of the rows")
    parser.add_argument("--print", action="store_true", dest="table", help="print the table of the rows, run nothing")
    parser.add_argument("words", nargs="*", help="what yolite train is given besides (after --)")
    given = parser.parse_args()
    if not (given.name or given.table):
        parser.error("--name is missing")
    jobs: list[Row] = [
        {"name": given.name, "data": data, "epochs": given.epochs, "seed": seed, "words": given.words}
        for seed in given.seeds
        for data in given.on
    ]
    for job in [] if given.table else jobs:
        if finished(given.results, job):
            continue
        source = DATA[job["data"]].replace("{shared}", str(given.shared))
        words = f"{source} --imgsz {SIZE} --batch {BATCH} --epochs {job['epochs']} --seed {job['seed']}".split()
        with tempfile.TemporaryDirectory() as folder:
            figures = train([*words, *given.words], Path(folder) / "run", given.threads)
        add(given.results, {**job, **figures, **machine()})
    show(read(given.results))


if __name__ == "__main__":
    main()
