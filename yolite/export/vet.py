"""Reading a torch.export file without running anything that stands in it.

torch's own reader unpickles objects, looks operators up by any dotted name, evaluates sizes as Python and runs the
guards' source, so a file from a stranger could do anything. What yolite writes needs none of this: tensors as plain
bytes, aten operators, and sizes made of a few words. All else is refused before torch sees the file.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from yolite.errors import UserError
from yolite.export.about import KEY
from yolite.export.extras import quiet

_MEMBERS = re.compile(
    rf"data/(weights/weight_\d+|constants/tensor_\d+|(weights|constants)/model_(weights|constants)_config\.json)"
    rf"|data/sample_inputs/model\.pt|models/model\.json|extra/{KEY}|archive_(format|version)|byteorder|\.data/\w+"
)
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|_operator\.(add|sub|mul|floordiv|mod|pow|neg|getitem|eq|ge|gt|le|lt|ne)"
)
_SIZE_WORDS = re.compile(
    r"(Mul|Add|Pow|Mod|FloorDiv|Max|Min|Integer|Symbol|Eq|Ne|Le|Lt|Ge|Gt|positive|nonnegative|integer|True|False"
    r"|'[su]\d+'|[su]\d+|\d+|[-+*/(),= ]|//)*"
)
_WORD = re.compile(r"\w*")


def _strings(plain: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Walk through JSON; yield every (key, value that is no container)."""
    if isinstance(plain, dict):
        for name, value in plain.items():
            yield "key", name
            yield from _strings(value, name)
    elif isinstance(plain, list):
        for value in plain:
            yield from _strings(value, key)
    else:
        yield key, plain


def _check(archive: zipfile.ZipFile) -> str:
    """Check every member of a torch.export file; return the metadata.

    Raises:
        ValueError: something stands in it that yolite does not write.
    """
    members = {name.partition("/")[2]: name for name in archive.namelist()}
    for name in members:
        if not _MEMBERS.fullmatch(name):
            raise ValueError(f"it holds {name!r}")
    if spoilt := archive.testzip():
        raise ValueError(f"{spoilt} is damaged")
    torch.load(io.BytesIO(archive.read(members["data/sample_inputs/model.pt"])), weights_only=True)
    for part in ("weights", "constants"):
        config = json.loads(archive.read(members[f"data/{part}/model_{part}_config.json"]))
        for entry in config["config"].values():
            if entry["use_pickle"] is not False or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                raise ValueError("it holds pickled objects")
    model = json.loads(archive.read(members["models/model.json"]))
    if model["guards_code"] or model["graph_module"]["graph"]["custom_obj_values"]:
        raise ValueError("it holds code")
    for size in model["range_constraints"]:
        if not _SIZE_WORDS.fullmatch(size):
            raise ValueError(f"it holds the size {size[:60]!r}")
    for node in model["graph_module"]["graph"]["nodes"]:
        if not _OPERATOR.fullmatch(node["target"]):
            raise ValueError(f"it holds the operator {node['target'][:60]!r}")
    for key, value in _strings(model["graph_module"]):
        if key == "expr_str" and not _SIZE_WORDS.fullmatch(value):
            raise ValueError(f"it holds the size {value[:60]!r}")
        if key in ("name", "as_name", "key") and value is not None and not _WORD.fullmatch(value.replace(".", "_")):
            raise ValueError(f"it holds the name {value[:60]!r}")
    return archive.read(members[f"extra/{KEY}"]).decode()


def read_program(path: Path) -> tuple[torch.export.ExportedProgram, str]:
    """Read a torch.export file.

    Returns:
        The program, and the text of its metadata.

    Raises:
        UserError: damaged, not written by yolite, or holding more than data and aten operators.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            text = _check(archive)
        with quiet():
            return torch.export.load(path), text
    except Exception as error:  # what is wrong may be anything, and show anywhere
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} was refused: damaged, or not a yolite export ({reason}): export it anew") from None
