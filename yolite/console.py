"""What people see: lines, tables and progress bars; the same words go into the run's log.txt."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
PLAIN_SECONDS = 10.0
"""Where there is no terminal, a progress line is printed this often."""


def one_line(text: str) -> str:
    """Return a text with its line breaks and control characters, which a file name may hold, spelled out."""
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


class Console:
    """Prints to stdout (results) and stderr (progress, warnings), and to a log file once there is one.

    Args:
        quiet: Print nothing: another process does.
    """

    def __init__(self, quiet: bool = False) -> None:
        # Without a terminal a line is never wrapped: one message, one line.
        width = None if sys.stdout.isatty() else 400
        self._out = RichConsole(width=width, highlight=False, soft_wrap=True, quiet=quiet)
        self._err = RichConsole(stderr=True, width=width, highlight=False, soft_wrap=True, quiet=quiet)
        self._log: Path | None = None
        self._early: list[str] = []
        self._lost = False
        self._live: RichConsole | None = None

    def log_to(self, path: Path) -> None:
        """Add every line to ``path`` too, those printed so far first."""
        self._log = path
        for text in self._early:
            self._write(text)

    def _write(self, text: str) -> None:
        if self._log is None:
            if not self._lost:
                self._early.append(text)
            return
        self._append(lambda file: file.write(text + "\n"))

    def _append(self, write: Callable[[TextIO], object]) -> None:
        """Add to the log; a full disk ends the log, not the run."""
        if self._log is None:
            return
        try:
            with self._log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                write(file)
        except OSError as error:
            path, self._log, self._early = self._log, None, []
            self._lost = True
            self._err.print(f"warning: {path} cannot be written any more ({error.strerror}); going on without it")

    def say(self, text: str) -> None:
        """Print one line."""
        text = one_line(text)
        # Above a progress bar only the bar's own console can print without tearing it.
        (self._live or self._out).print(text, markup=False)
        self._write(text)

    def warn(self, text: str) -> None:
        """Print one line on stderr, marked as a warning."""
        text = one_line(text)
        self._err.print(f"warning: {text}", markup=False, style="yellow")
        self._write(f"warning: {text}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; the first column is left-aligned, the others are numbers."""
        table = Table(title=title, title_justify="left")
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*map(escape, row))
        self._out.print(table)
        self._append(lambda file: RichConsole(file=file, width=160).print(table))

    @contextmanager
    def track(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """Show progress; yields a function to call with (done, in all)."""
        with self.bar() as update:
            yield lambda done, total: update(label, done, total)

    @contextmanager
    def bar(self) -> Iterator[Callable[[str, int, int], None]]:
        """Show a progress bar with a text that may change; yields a function (text, done, in all or 0: unknown)."""
        if not self._err.is_terminal:
            begun = time.monotonic()
            last, first = [begun], list[int]()

            def plain(text: str, done: int, total: int) -> None:
                now = time.monotonic()
                first[:] = first or [done]
                if now - last[0] >= PLAIN_SECONDS and first[0] < done and (done < total or not total):
                    last[0] = now
                    left = (total - done) * (now - begun) / (done - first[0])
                    rest = f"/{total}, about {timedelta(seconds=round(left))} left" if total else ""
                    self._err.print(f"{text}: {done}{rest}", markup=False)

            yield plain
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("eta"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self._err, transient=True) as progress:
            task = progress.add_task("", total=None)
            self._live = self._err if self._out.is_terminal else None
            try:
                yield lambda text, done, total: progress.update(
                    task, description=text, completed=done, total=total or None
                )
            finally:
                self._live = None
