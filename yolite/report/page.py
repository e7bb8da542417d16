"""The frame of every page: one HTML file with its style, scripts, data and pictures inside; light, dark, narrow.

``templates/page.html`` is the frame (head, theme, navigation, foot); a page extends it and fills the block ``body``,
and ``script`` where it has scripts of its own. A ``<section id=… data-short=…>`` of the body gets a place in the
navigation, a ``<table class="sort">`` sorts. Everything is escaped but what is `Markup`.
"""

from __future__ import annotations

import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, PackageLoader, StrictUndefined

from yolite import __version__
from yolite.files import write_atomically

PACKAGES = ("torch", "torchvision", "numpy", "pycocotools")
"""Whose versions are on the page."""


def environment() -> Environment:
    """Return the templates, every value escaped, a missing one an error."""
    return Environment(
        loader=PackageLoader("yolite.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def write_page(path: Path, template: str, title: str, **content: Any) -> int:
    """Write a page; return its size in bytes.

    Args:
        path: The .html.
        template: Name of a file in templates/ that extends page.html.
        title: Of the page.
        content: What the template asks for.

    Raises:
        UserError: it cannot be written.
    """
    frame = {"title": title, "command": command_line(), "versions": versions()}
    page = environment().get_template(template).render(**frame, **content).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(page))
    return len(page)


def command_line() -> str:
    """Return what was typed, as it can be typed again."""
    program = Path(sys.argv[0])
    start = f"python {shlex.quote(str(program))}" if program.suffix == ".py" and program.name != "__main__.py" else ""
    return f"{start or 'yolite'} {shlex.join(sys.argv[1:])}".strip()


def versions() -> dict[str, str]:
    """Return the versions that the numbers come from."""
    found = {"yolite": __version__, "Python": platform.python_version()}
    found |= {name: metadata.version(name) for name in PACKAGES}
    return found | {"OpenCV": cv2.__version__, "system": platform.platform(terse=True)}
