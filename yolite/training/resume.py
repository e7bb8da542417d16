"""What a run must still be when it is resumed: its settings and its data, unless a change is accepted by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolite.config import Config, to_plain
from yolite.data.pictures import Pictures
from yolite.errors import UserError
from yolite.settings import absolute_source, check_key, make_config, merge

DataHashes = dict[str, dict[str, str]]
"""A hash of each image's labels by role and id."""

FIXED = (
    "model.", "preprocess.", "train.optimizer", "train.freeze", "train.transfer", "train.lr_factors", "train.best_by",
    "overfit", "data.balance", "data.background",
)  # fmt: skip
"""Settings that a run's weights, optimiser, best.ckpt or steps an epoch depend on: they cannot change within a run."""


def hash_labels(pictures: Pictures) -> dict[str, str]:
    """Return a short hash of each image's size, boxes and labels, by its id (numbered where several share one)."""
    out: dict[str, str] = {}
    for s in pictures.samples:
        digest = hashlib.sha256(str(s.size).encode())
        digest.update(s.boxes.numpy().tobytes() + s.labels.numpy().tobytes() + s.ignore.numpy().tobytes())
        key, number = str(s.id), 1
        while key in out:
            number += 1
            key = f"{s.id} ({number})"
        out[key] = digest.hexdigest()[:16]
    return out


def fingerprint(data: DataHashes, names: Sequence[str]) -> str:
    """Return one hash of what is trained and judged on; the order of the images counts."""
    return hashlib.sha256(json.dumps([data, list(names)]).encode()).hexdigest()


def data_differences(stored: DataHashes, now: DataHashes) -> list[str]:
    """List in words how a data set differs from the one a run was started on."""
    out = []
    for role, old in stored.items():
        new = now.get(role, {})
        kinds = {
            "new": [i for i in new if i not in old],
            "gone": [i for i in old if i not in new],
            "with other labels": [i for i in new if i in old and new[i] != old[i]],
        }
        for kind, found in kinds.items():
            if found:
                out.append(f"{role}: {len(found)} images {kind} (first: {found[0]})")
        if not any(kinds.values()) and list(old) != list(new):
            out.append(f"{role}: the same images in another order")
    return out or ["the order of the classes or images"]


def differences(stored: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> list[str]:
    """List the settings that differ, as ``key: stored -> asked``."""
    out = []
    for key in sorted(stored.keys() | asked.keys()):
        old, new = stored.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            out += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            out.append(f"{prefix}{key}: {old} -> {new}")
    return out


def _without_auto(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without those asked to be ``auto``: what that was is decided already."""
    return {
        key: _without_auto(value) if isinstance(value, Mapping) else value
        for key, value in plain.items()
        if value != "auto"
    }


def _absolute(asked: dict[str, Any]) -> dict[str, Any]:
    """Write a relative data.source as a run stores it."""
    data = asked.get("data")
    if isinstance(data, dict) and "source" in data:
        return {**asked, "data": {**data, "source": absolute_source(str(data["source"]))}}
    return asked


def accepted_settings(
    folder: Path, stored: dict[str, Any], asked: Mapping[str, Any], accept: Sequence[str]
) -> tuple[Config, dict[str, str]]:
    """Lay the settings asked for over the run's own; refuse those that were not accepted by name.

    Args:
        folder: The run.
        stored: Its settings.
        asked: Settings asked for now.
        accept: Keys that may differ.

    Returns:
        The configuration to go on with, and each accepted change in words, by its key.

    Raises:
        UserError: a setting differs that cannot or may not, or one was accepted that does not.
    """
    for key in accept:
        check_key(key, "--accept", others=("data",))
    config = make_config(merge(stored, _absolute(_without_auto(asked))))
    changed = {line.split(":")[0]: line for line in differences(stored, to_plain(config))}
    if fixed := [line for key, line in changed.items() if key.startswith(FIXED)]:
        raise UserError(
            f"--resume {folder}: these settings cannot change within a run: {'; '.join(fixed)}: start a new run with "
            f"--weights {folder}"
        )
    if refused := [key for key in changed if key not in accept]:
        raise UserError(
            f"--resume {folder}: a run goes on with its own settings, these differ: {'; '.join(changed.values())}: "
            f"leave them out, or accept them by name: {' '.join(f'--accept {key}' for key in refused)}"
        )
    if idle := [key for key in accept if key != "data" and key not in changed]:
        raise UserError(f"--accept {idle[0]}: that setting does not differ from the run's own: leave it out")
    return config, changed


def check_data(
    folder: Path, stored: DataHashes, now: DataHashes, names: tuple[Sequence[str], Sequence[str]], accept: Sequence[str]
) -> str:
    """Refuse a data set that has changed, unless ``data`` was accepted; return the differences in words.

    Args:
        folder: The run.
        stored: The data set when the run was started.
        now: The data set now.
        names: The class names then and now.
        accept: What may differ.

    Raises:
        UserError: it may not have changed, or has other classes.
    """
    found = "; ".join(data_differences(stored, now))
    if list(names[0]) != list(names[1]):
        raise UserError(
            f"--resume {folder}: the class names have changed ({', '.join(names[0])} -> {', '.join(names[1])}): start "
            f"a new run with --weights {folder}"
        )
    if "data" not in accept:
        raise UserError(
            f"--resume {folder}: the data set has changed since: {found}: undo that, go on all the same with --accept "
            f"data, or start a new run with --weights {folder}"
        )
    return found
