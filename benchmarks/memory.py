"""The memory of a program and of all processes that it starts (Linux)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

EVERY = 0.1
"""Seconds between two looks."""


def processes(parent: int) -> Iterator[int]:
    """Yield the children of a process, and theirs."""
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:  # it has just ended
            continue
        for child in map(int, found):
            yield child
            yield from processes(child)


def used(process: int) -> tuple[int, int]:
    """Return a process's bytes, its share of shared pages (PSS) and all of them (RSS); 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0, 0
    found = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
    return found["Pss"], found["Rss"]


def most_memory(call: Callable[[], object]) -> dict[str, float]:
    """Return the most GB that the processes which ``call()`` starts have at a time, and in how many they lay then."""
    most, done = (0, 0, 0), threading.Event()

    def look() -> None:
        nonlocal most
        while not done.wait(EVERY):
            each = [used(process) for process in processes(os.getpid())]
            most = max(most, (sum(pss for pss, _ in each), sum(rss for _, rss in each), len(each)))

    watch = threading.Thread(target=look)
    watch.start()
    try:
        call()
    finally:
        done.set()
        watch.join()
    return {"gb": round(most[0] / 1e9, 3), "gb_rss": round(most[1] / 1e9, 3), "processes": most[2]}
