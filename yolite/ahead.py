"""Work that goes on in other threads while the network computes, a bounded piece ahead: memory stays constant."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """Yield ``items`` in order, up to ``depth`` of them made in advance by one thread.

    What the thread raises is raised here. Left early, the thread stops after the item at hand and closes ``items``.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(depth)
    left = threading.Event()

    def put(entry: tuple[T | None, BaseException | None, bool]) -> bool:
        while not left.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not put((item, None, False)):
                    break
            put((None, None, True))
        except BaseException as error:
            put((None, error, True))
        finally:
            close = getattr(iterator, "close", None)
            if close:
                close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = ready.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc] # not None: neither an error nor the end
    finally:
        left.set()
        thread.join(timeout=5)


class Behind:
    """Calls that are made in the background, in threads, with at most ``depth`` of them waiting.

    Args:
        workers: Threads.
        depth: Most calls that wait; `do` blocks where there are more.
    """

    def __init__(self, workers: int, depth: int) -> None:
        self._pool = ThreadPoolExecutor(workers)
        self._depth = depth
        self._waiting: deque[Future[object]] = deque()

    def do(self, call: Callable[[], object]) -> None:
        """Have ``call`` made soon; raises what an earlier one has raised."""
        while len(self._waiting) >= self._depth:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(call))

    def wait(self) -> None:
        """Wait for those that were given so far; raises what one of them has raised."""
        while self._waiting:
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait for all of them and stop the threads; raises what one of them has raised."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()
