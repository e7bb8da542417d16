"""The forward pass of yolite-n beside the peers' small models: fused, channels_last, one picture, decoded boxes.

    python benchmarks/latency.py --peer PYTHON

PYTHON is that of an environment with ultralytics. All have 3 classes, random weights, float32 and as many threads;
320x320 and 640x640 px (speed.py). The models take turns, each round in a process of its own, as the machine's speed
changes from minute to minute; the median of the rounds is printed. Time it on an otherwise idle machine. The rows go to
benchmarks/results/latency.json; a finished round is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from peer import OURS, PEERS, THREADS, answer
from rows import RESULTS, ROOT, add, finished, moment, read
from speed import SIZES


def main() -> None:
    """Run what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="Python of an environment with the peer; left out: yolite alone")
    parser.add_argument("--rounds", type=int, default=7)
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
    rows = read(given.results)
    print("| model | M parameters | forward ms, 320 px | 640 px | rounds |\n|---|---|---|---|---|")
    for model in (OURS, *PEERS):
        if own := [row for row in rows if row["model"] == model]:
            times = [f"{statistics.median(row['forward_ms'][str(size)] for row in own):.1f}" for size in SIZES]
            print(f"| {model} | {own[0]['parameters'] / 1e6:.2f} | {' | '.join(times)} | {len(own)} |")


if __name__ == "__main__":
    main()
