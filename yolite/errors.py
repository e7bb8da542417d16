"""The one exception that means "the user can mend this"."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what was asked: one plain sentence that says what, where and the remedy.

    The command line prints it on stderr without a traceback and exits with 2; from Python it is raised as is.
    """


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest valid word, or an empty string if none is close."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def require(package: str, extra: str, what: str) -> None:
    """Check that the package of an extra is there.

    Raises:
        UserError: it is not installed; ``what`` wants it.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{what} needs the package {package}: pip install 'yolite[{extra}]'")
