"""Checkpoints: tensors and plain data only, written whole or not at all, read without running anything.

A file holds ``schema`` and the keys of `SCHEMA_KEYS`; `torch.save` writes it and ``weights_only=True`` reads it back,
so a pickled object is refused before it can run.
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from yolite.errors import UserError
from yolite.files import write_atomically
from yolite.models.detector import Detector
from yolite.models.graph import LayerRecord
from yolite.structures import HeadSpec, Preprocess

SCHEMA = 1
SCHEMA_KEYS = ("schema", "yolite", "weights", "ema", "records", "outputs", "specs", "preprocess", "names", "config")
"""What every checkpoint holds; a training one holds ``training`` too (optimiser, place in the run, history)."""


def describe(detector: Detector, preprocess: Preprocess, names: list[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything but weights that is needed to build and feed this detector again, as plain data."""
    from yolite import __version__

    return {
        "schema": SCHEMA,
        "yolite": __version__,
        "records": [record.to_plain() for record in detector.graph.records],
        "outputs": list(detector.graph.outputs),
        "specs": [asdict(spec) for spec in detector.specs],
        "preprocess": asdict(preprocess),
        "names": list(names),
        "config": dict(config),
    }


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint; see `write_atomically`."""
    missing = [key for key in SCHEMA_KEYS if key not in content]
    if missing:
        raise ValueError(f"checkpoint lacks {missing}")
    write_atomically(path, lambda file: torch.save(dict(content), file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        UserError: missing, damaged, not a yolite checkpoint, or of a newer schema.
    """
    if not path.is_file():
        raise UserError(f"weights {path} do not exist: give a checkpoint or a run folder")
    try:
        with zipfile.ZipFile(path) as parts:
            if spoilt := parts.testzip():  # torch reads flipped bytes as they are
                raise zipfile.BadZipFile(spoilt)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise UserError(f"weights {path} may not be read: mend the permissions of the file") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds objects, not plain weights, or is damaged: it was refused unread; "
            "only yolite checkpoints can be given"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
        raise UserError(f"{path} is damaged or no checkpoint: give another, e.g. last.ckpt of the run") from None
    if not isinstance(content, dict) or "schema" not in content:
        raise UserError(f"{path} is not a yolite checkpoint (it has no schema number)")
    if not isinstance(content["schema"], int) or content["schema"] > SCHEMA:
        raise UserError(f"{path} has schema {content['schema']}, this yolite reads up to {SCHEMA}: update yolite")
    missing = [key for key in SCHEMA_KEYS if key not in content]
    if missing:
        raise UserError(f"{path} is not a whole yolite checkpoint (it lacks {', '.join(missing)})")
    try:
        _check_parts(content)
    except Exception as error:  # what is wrong may be anything, and show anywhere
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} is damaged or no whole yolite checkpoint ({reason}): give another") from None
    return content


def _check_parts(content: Mapping[str, Any]) -> None:
    """Build the network without its numbers, and compare what the checkpoint holds with what it needs.

    Raises:
        Exception: the parts are not what they should be, or do not belong together.
    """
    with torch.device("meta"):
        detector = Detector(
            [LayerRecord.from_plain(plain) for plain in content["records"]], restore_specs(content), content["outputs"]
        )
    restore_preprocess(content)
    wanted = {name: value.shape for name, value in detector.state_dict().items()}
    averaged = [content["ema"]["weights"]] if content["ema"] is not None else []
    for weights in (content["weights"], *averaged):
        if {name: value.shape for name, value in weights.items()} != wanted:
            raise ValueError("its weights are not those of its network")
    names = content["names"]
    if not isinstance(names, list) or len(names) != detector.classes or not all(isinstance(n, str) for n in names):
        raise ValueError("its class names are not those of its network")
    if not isinstance(content["config"], dict) or not isinstance(content.get("training", {}), dict):
        raise ValueError("its settings are none")


def find_weights(where: str | Path) -> Path:
    """Return the checkpoint that ``where`` names: a file, or a run folder's best.ckpt (else its last.ckpt).

    Raises:
        UserError: there is none, or it is an exported file.
    """
    path = Path(where)
    if not path.is_dir():
        if path.suffix in (".onnx", ".xml", ".pt2"):
            raise UserError(f"{path} is an exported file, and this takes a checkpoint or a run folder: give that")
        return path
    for name in ("best.ckpt", "last.ckpt"):
        if (path / name).is_file():
            return path / name
    raise UserError(f"folder {path} holds no checkpoint (best.ckpt or last.ckpt): is it a finished run?")


def restore_specs(content: Mapping[str, Any]) -> tuple[HeadSpec, ...]:
    """Return the HeadSpecs of a checkpoint."""
    return tuple(HeadSpec(**{**s, "anchors": tuple(tuple(a) for a in s["anchors"])}) for s in content["specs"])


def restore_preprocess(content: Mapping[str, Any]) -> Preprocess:
    """Return the Preprocess of a checkpoint."""
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["preprocess"].items()}
    return Preprocess(**plain)


def restore_detector(content: Mapping[str, Any], average: bool = True) -> Detector:
    """Build the detector of a checkpoint with its averaged (EMA) or raw weights."""
    records = [LayerRecord.from_plain(plain) for plain in content["records"]]
    detector = Detector(records, restore_specs(content), content["outputs"])
    state = content["ema"]["weights"] if average and content["ema"] else content["weights"]
    detector.load_state_dict(state)
    return detector


def transfer(detector: Detector, content: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Copy the (averaged) weights of a checkpoint that fit ``detector`` by name and shape.

    Returns:
        Names of the tensors that were kept, and of those that stay newly drawn.
    """
    source = content["ema"]["weights"] if content["ema"] else content["weights"]
    own = detector.state_dict()
    kept = [name for name, value in own.items() if name in source and source[name].shape == value.shape]
    detector.load_state_dict({**own, **{name: source[name] for name in kept}})
    return kept, [name for name in own if name not in kept]
