"""What an exported file says of itself: names, HeadSpecs, Preprocess and settings, as one JSON text in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolite.checkpoint import restore_preprocess, restore_specs
from yolite.errors import UserError

KEY = "yolite"
"""The metadata entry (ONNX), the rt_info (OpenVINO) or the extra file (torch.export) that holds the text."""

SCHEMA = 1
_FROM_CHECKPOINT = ("yolite", "specs", "preprocess", "names", "config")


def to_text(checkpoint: Mapping[str, Any], export: Mapping[str, Any]) -> str:
    """Return the text for a file made of a checkpoint.

    Args:
        checkpoint: As `load_checkpoint` returns it.
        export: What this file is: format, precision, outputs, FLOPs …
    """
    return json.dumps({"schema": SCHEMA, **{key: checkpoint[key] for key in _FROM_CHECKPOINT}, "export": dict(export)})


def from_text(text: str | None, path: Path) -> dict[str, Any]:
    """Read what `to_text` wrote.

    Raises:
        UserError: there is none, or it is damaged or of a newer yolite.
    """
    if not text:
        raise UserError(f"{path} was not exported by yolite (its metadata has no entry {KEY!r}): export it anew")
    try:
        content = json.loads(text)
        if not isinstance(content["schema"], int) or content["schema"] > SCHEMA:
            raise UserError(f"{path} has schema {content['schema']}, this yolite reads up to {SCHEMA}: update yolite")
        specs, names = restore_specs(content), content["names"]
        restore_preprocess(content)
        if not all(isinstance(name, str) for name in names) or any(len(names) != spec.classes for spec in specs):
            raise ValueError("its class names are not those of its network")
        if not isinstance(content["config"], dict) or not isinstance(content["export"], dict):
            raise ValueError("its settings are none")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: its metadata are damaged ({str(error)[:100]}): export it anew") from None
    out: dict[str, Any] = content
    return out
