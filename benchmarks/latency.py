"""The forward pass of yolite-n beside the peers' small models: fused, channels_last, one picture, decoded boxes.

    python benchmarks/latency.py --peer PYTHON

PYTHON is that of an environment with ultralytics. All have 3 classes, random weights, float32 and as many threads;
320x320 and 640x640 px (speed.py). The models take turns, each round in a process of its own, as the machine's speed
changes from minute to minute; the median of the rounds and the least are printed. Time it on an otherwise idle machine.
The rows go to benchmarks/results/latency.json; a finished round is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from peer import OURS, PEERS, THREADS, answer
from rows import RESULTS, ROOT, Row, add, finished, moment, read
from speed import SIZES

PARAMETERS = ("parameters", "fused_parameters")
"""Of a row; those of before 22 November 2026 have the first alone."""


def main() -> None:
    """Run what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="Python of an environment with the peer; left out: yolite alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--results", type=Path, default=RESULTS / "latency.json", help="file of the rows")
    given = parser.parse_args()
    for number in range(1, given.rounds + 1):
        for model in (OURS, *PEERS) if given.peer else (OURS,):
            job = {"model": model, "round": number, "threads": given.threads}
            if finished(given.results, job):
                continue
            tool, python = ("yolite", Path(sys.executable)) if model == OURS else ("ultralytics", given.peer.absolute())
            command = [python, ROOT / "benchmarks" / "speed.py", tool, model, ".", SIZES[0], given.threads, "forward"]
            about = moment(given.threads)
            add(given.results, {**job, **json.loads(answer(command, given.threads)), **about})
    show(read(given.results))


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    print("| model | M parameters, in training | fused | forward ms, 320 px: median | least | 640 px: median | least "
          f"| rounds |\n|{'---|' * 8}")  # fmt: skip
    for model in (OURS, *PEERS):
        if own := [row for row in rows if row["model"] == model]:
            counts = [f"{own[0][name] / 1e6:.2f}" if name in own[0] else "" for name in PARAMETERS]
            series = [[row["forward_ms"][str(size)] for row in own] for size in SIZES]
            times = [f"{pick(values):.1f}" for values in series for pick in (statistics.median, min)]
            print(f"| {' | '.join([model, *counts, *times, str(len(own))])} |")


if __name__ == "__main__":
    main()
