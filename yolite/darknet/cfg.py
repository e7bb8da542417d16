"""A .cfg file as sections with typed options; every complaint names the file, the line and the section.

Read as Darknet reads it (github.com/AlexeyAB/darknet, src/parser.c and src/option_list.c): white space means nothing,
a line that begins with ``#`` or ``;`` is a remark, and what follows a ``#`` in a line is one too.
Of an option that stands twice in a section the first counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from yolite.errors import UserError
from yolite.files import read_text

T = TypeVar("T")

MOST = 100_000
"""A larger number of filters, cells or px is a slip: it would fill the memory."""


@dataclass(frozen=True)
class Section:
    """One ``[name]`` with its options.

    Attributes:
        file: The file it stands in.
        line: Number of its line, from 1.
        name: Without the brackets.
        options: Text of each option by its key.
    """

    file: Path
    line: int
    name: str
    options: Mapping[str, str]

    def fail(self, reason: str) -> NoReturn:
        """Raise UserError with the place of this section."""
        raise UserError(f"{self.file}, line {self.line}, [{self.name}]: {reason}")

    def text(self, key: str, default: str) -> str:
        """Return an option as it is written."""
        return self.options.get(key, default)

    def integer(self, key: str, default: int, least: int = 0) -> int:
        """Return a whole number from ``least`` to `MOST`."""
        value = self._read(key, str(default), int, "a whole number")
        if value < least:
            self.fail(f"{key}={value} must be at least {least}")
        if value > MOST:
            self.fail(f"{key}={value} must be at most {MOST}")
        return value

    def number(self, key: str, default: float) -> float:
        """Return a number."""
        return self._read(key, str(default), float, "a number")

    def integers(self, key: str) -> list[int]:
        """Return the whole numbers of a list with commas."""
        return [self._read(key, part, int, "whole numbers", part) for part in self._parts(key)]

    def numbers(self, key: str) -> list[float]:
        """Return the numbers of a list with commas."""
        return [self._read(key, part, float, "numbers", part) for part in self._parts(key)]

    def _parts(self, key: str) -> list[str]:
        if key not in self.options:
            self.fail(f"{key} is missing")
        return [part for part in self.options[key].split(",") if part]

    def _read(self, key: str, default: str, kind: Callable[[str], T], what: str, text: str | None = None) -> T:
        """Turn the text of an option (or a part of it) into a number."""
        text = self.options.get(key, default) if text is None else text
        try:
            return kind(text)
        except ValueError:
            self.fail(f"{key}={self.options.get(key, default)} is not {what}")


def read_cfg(path: Path) -> list[Section]:
    """Return the sections of a .cfg file; the first is ``[net]``.

    Raises:
        UserError: it cannot be read, a line is not understood, or it does not begin with ``[net]``.
    """
    sections: list[tuple[int, str, dict[str, str]]] = []
    for number, raw in enumerate(read_text(path).splitlines(), 1):
        line = "".join(raw.split()).partition("#")[0]
        if not line or line.startswith(";"):
            continue
        if line.startswith("[") and line.endswith("]"):
            sections.append((number, line[1:-1], {}))
            continue
        key, sign, value = line.partition("=")
        if not sign or not key or not value or not sections:
            raise UserError(f"{path}, line {number}: {raw.strip()[:80]!r} is neither a [section] nor key=value")
        sections[-1][2].setdefault(key, value)
    if not sections or sections[0][1] not in ("net", "network"):
        raise UserError(f"{path} does not begin with a section [net]: is it a Darknet .cfg file?")
    return [Section(path, number, name, options) for number, name, options in sections]
