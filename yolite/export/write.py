"""Writing an exported file in each format, with what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from yolite.errors import UserError
from yolite.export.about import KEY
from yolite.export.extras import need_onnx, need_openvino, openvino_core, quiet
from yolite.export.graph import Readable

OPSET = 23
"""ONNX operator set: that of ONNX 1.18 (2025)."""

SUFFIX = {"onnx": ".onnx", "openvino": ".xml", "torchexport": ".pt2"}
"""The formats, and how their files end."""


def _nms_of_onnx(boxes: Any, values: Any, iou: float, conf: float) -> Any:
    """Translate `yolite.export.graph.nms` into ONNX's operator."""
    from onnxscript import opset23 as op

    most = op.Constant(value_ints=[2**31 - 1])
    return op.NonMaxSuppression(
        boxes, values, most, op.Constant(value_floats=[iou]), op.Constant(value_floats=[conf]), center_point_box=0
    )


def _sort_of_onnx(values: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """Translate a stable sort of numbers in a row: ONNX's TopK of all of them leaves equal ones in their order."""
    from onnxscript import opset23 as op

    return op.TopK(values, op.Shape(values), axis=dim, largest=int(descending), sorted=1)


def to_onnx(program: torch.export.ExportedProgram, model: Readable) -> Any:
    """Translate a traced model into an ``onnx.ModelProto``."""
    need_onnx()
    translations: dict[Any, Any] = {
        torch.ops.yolite.nms.default: _nms_of_onnx,
        torch.ops.aten.sort.stable: _sort_of_onnx,
    }
    with quiet():
        made = torch.onnx.export(
            program, (), dynamo=True, opset_version=OPSET, input_names=["images"], output_names=model.outputs,
            custom_translation_table=translations, verbose=False,
        )  # fmt: skip
    assert made is not None
    proto = made.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # torch's notes on where each came from
    return proto


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say in one sentence that a library could not write.

    Raises:
        UserError: for what it raised.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path.name} could not be written ({reason}): free space or choose another place") from error


def write_onnx(proto: Any, text: str, path: Path) -> None:
    """Write an ONNX file: weights, graph and metadata in one."""
    onnx, _ = need_onnx()
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {KEY: text})
    onnx.checker.check_model(proto, full_check=True)
    with _told(path):
        onnx.save(proto, path)


def write_openvino(proto: Any, text: str, path: Path) -> None:
    """Write an OpenVINO file (.xml, weights in .bin beside it), float32 weights uncompressed."""
    openvino = need_openvino()
    model = openvino_core().read_model(proto.SerializeToString())
    model.set_rt_info(text, [KEY])
    with _told(path):
        openvino.save_model(model, path, compress_to_fp16=False)


def write_program(program: torch.export.ExportedProgram, text: str, path: Path) -> None:
    """Write a torch.export file without its guards: they are source code, which a reader would have to run."""
    program._guards_code = []  # torch has no public way to leave them out
    with quiet(), _told(path):
        torch.export.save(program, path, extra_files={KEY: text})
