"""``yolite export``: write, prove, and only then give the file its name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolite.build import build_preprocess
from yolite.checkpoint import find_weights, load_checkpoint, restore_detector
from yolite.commands.common import check_classes, config_of_weights, settings_of_use
from yolite.config import Config, to_plain
from yolite.console import Console
from yolite.data.dataset import Split
from yolite.data.loader import plain_batches
from yolite.data.pictures import Pictures
from yolite.defaults import CONF, IOU, MAX_DET
from yolite.errors import UserError, nearest
from yolite.export.about import to_text
from yolite.export.extras import need_onnx, need_openvino
from yolite.export.graph import InGraph, Readable, fixed_size, trace
from yolite.export.parity import (
    FLOAT,
    INT8,
    LEAST_SHARE,
    Row,
    compare_detections,
    compare_outputs,
    inputs_of,
    other_size,
    to_json,
)
from yolite.export.quantise import quantised, share_in_onnx, share_in_openvino
from yolite.export.runtimes import open_exported
from yolite.export.write import SUFFIX, to_onnx, write_onnx, write_openvino, write_program
from yolite.files import check_writable, write_json
from yolite.inference import Inference, TorchNetwork, check_input
from yolite.models.detector import fused
from yolite.models.summary import summarise
from yolite.postprocess import Thresholds
from yolite.reading import build_dataset, load_splits
from yolite.structures import Sample

CPU = torch.device("cpu")
CALIBRATION = 128
"""Most pictures that INT8 is calibrated on."""
PROOF_BATCH = 4
"""Pictures in the batch on which every output is compared."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        format: onnx, openvino or torchexport.
        int8: Quantised.
        limits: Thresholds of NMS in the graph; None: without.
        out: The file.
    """

    format: str
    int8: bool
    limits: InGraph | None
    out: Path

    @property
    def files(self) -> list[str]:
        """Names of the files, the one that is opened last."""
        return [self.out.with_suffix(".bin").name] * (self.format == "openvino") + [self.out.name]


def make_request(weights: Path, format: str, out: Path | None, int8: bool, nms: bool,
                 thresholds: Mapping[str, float | None]) -> Request:  # fmt: skip
    """Check what was asked for, before any work.

    Raises:
        UserError: an unknown format, an option that the format cannot honour, a missing package or a bad place.
    """
    if format not in SUFFIX:
        raise UserError(f"--format {format!r} is not known{nearest(format, SUFFIX)}: give {', '.join(SUFFIX)}")
    if format == "torchexport":
        for flag, given in (("--int8", int8), ("--nms", nms)):
            if given:
                raise UserError(f"--format torchexport has no {flag[2:]}: leave {flag} out, or choose onnx or openvino")
    for name, value in thresholds.items():
        if value is not None and not nms:
            raise UserError(f"--{name} belongs to --nms: without it, who runs the file chooses")
    if format == "openvino":
        need_openvino()  # first: its extra brings the other
    if format != "torchexport":
        need_onnx()
    suffix = SUFFIX[format]
    out = out or weights.with_name(f"{weights.stem}{'-int8' if int8 else ''}{suffix}")
    if out.suffix != suffix:
        raise UserError(f"--out {out}: a file of this format ends in {suffix}")
    check_writable(out, "--out")
    chosen = {"conf": CONF, "iou": IOU, "max-det": MAX_DET} | {k: v for k, v in thresholds.items() if v is not None}
    limits = InGraph(chosen["conf"], chosen["iou"], int(chosen["max-det"])) if nms else None
    return Request(format, int8, limits, out)


def _unlabelled(split: Split, names: list[str]) -> Split:
    """Return the pictures of a split alone, for a network of other classes."""
    fields = ("boxes", "labels", "iscrowd", "area", "difficult")
    samples = [replace(sample, **{name: getattr(sample, name)[:0] for name in fields}) for sample in split.samples]
    return replace(split, samples=samples, names=names)


def _calibration(split: Split, config: Config) -> Iterator[np.ndarray]:
    """Yield network inputs [1, 3, H, W], all of the whole size, of pictures spread evenly over a split."""
    preprocess, count = build_preprocess(config), min(CALIBRATION, len(split.samples))
    spread = np.linspace(0, len(split.samples) - 1, count).astype(int).tolist()
    for batch, _ in plain_batches(Pictures(split.samples, preprocess), 1, lambda *_: None, spread, step=0):
        yield preprocess.normalise(batch.images).numpy()


def _write(request: Request, model: Readable, text: str, calibration: Iterator[np.ndarray] | None, path: Path,
           config: Config) -> float | None:  # fmt: skip
    """Trace the model and write its file; return the share of FLOPs in INT8, if that was asked for."""
    program = trace(model)
    if request.format == "torchexport":
        write_program(program, text, path)
        return None
    floating = proto = to_onnx(program, model)
    if calibration is not None:
        proto = quantised(floating, calibration, path.parent, request.format == "openvino")
    if request.format == "onnx":
        write_onnx(proto, text, path)
        return share_in_onnx(floating, path, config.imgsz, path.parent) if request.int8 else None
    write_openvino(proto, text, path)
    return share_in_openvino(path, config.imgsz) if request.int8 else None


def prove(
    path: Path, model: Readable, config: Config, split: Split, share: float | None, console: Console
) -> list[Row]:
    """Compare a written file with the checkpoint, as `yolite.export.parity` says.

    Raises:
        UserError: the file cannot be opened, or none of the pictures can be read.
    """
    tolerance = FLOAT if share is None else INT8
    preprocess = build_preprocess(config)
    bad: list[str] = []

    def report(sample: Sample, reason: str) -> None:
        bad.append(f"{sample.path}: {reason}")

    pictures = Pictures(split.samples, preprocess)
    sizes = [config.imgsz]
    if fixed_size(model.detector) is None:
        sizes.append(other_size(config.imgsz, model.detector.max_stride))
    inputs = inputs_of(pictures, sizes, PROOF_BATCH)
    _, whole = open_exported(path, CPU, lambda about: list(about["export"]["outputs"]))
    with torch.inference_mode():
        rows = compare_outputs(
            model, whole, [preprocess.normalise(x) for x in inputs], model.outputs, config.eval.conf, tolerance
        )
    _, network = open_exported(path, CPU)
    before = Inference(TorchNetwork(model.detector, CPU), preprocess)
    judged = Thresholds(config.eval.conf, config.eval.iou, config.eval.max_det, best_class=False)
    used = Thresholds(CONF, IOU, MAX_DET, best_class=True)
    with console.track("comparing") as progress:
        rows += compare_detections(before, Inference(network, preprocess), pictures, split.names, judged, used,
                                   config.eval.batch, tolerance, report, progress)  # fmt: skip
    if bad:
        console.warn(f"{len(bad)} images could not be read and were not compared (first: {bad[0]})")
    if share is not None:
        rows.append(Row("FLOPs not in INT8", 1 - share, 1 - LEAST_SHARE, f"{share:.1%} in INT8"))
    not_square = sum(sample.size[0] != sample.size[1] for sample in split.samples)
    shapes = ", ".join(f"{len(x)} x {x.shape[2]}x{x.shape[3]}" for x in inputs)
    console.say(f"parity: {len(split.samples)} pictures of {split.where}, {not_square} of them not square; "
                f"every output on batches of {shapes}")  # fmt: skip
    return rows


def _show(rows: Sequence[Row], title: str, console: Console) -> None:
    """Print the report."""
    table = [
        [row.name, f"{row.measured:.2g}", "" if row.allowed is None else f"{row.allowed:g}",
         "" if row.allowed is None else "ok" if row.passed else "FAILED", row.note]
        for row in rows
    ]  # fmt: skip
    console.table(title, ["compared with the checkpoint", "largest", "allowed", "", ""], table)


def export_weights(
    weights: str, format: str, out: Path | None, int8: bool, nms: bool, thresholds: Mapping[str, float | None],
    split: str, options: Mapping[str, Any], words: Sequence[str], json: Path | None,
) -> int:  # fmt: skip
    """Export a checkpoint; return 1 where the parity report fails.

    Raises:
        UserError: bad options, unreadable weights or data, or a full disk.
    """
    why = "the weights have their own; data, eval.batch and imgsz can be chosen"
    settings = settings_of_use(words, ["data", "eval.batch", "imgsz"], "export", why)
    source = find_weights(weights)
    request = make_request(source, format, out, int8, nms, thresholds)
    if json:
        check_writable(json, "--json")
    content = load_checkpoint(source)
    config, console = config_of_weights(content["config"], options, settings), Console()
    borrowed = "training" not in content and "data" not in {**options, **settings}
    if borrowed and int8:
        raise UserError(
            f"{weights} was imported, and --int8 is calibrated on pictures like those it will see: give --data"
        )
    dataset = build_dataset(config, console)
    (data,) = load_splits(dataset, [split], console)
    if borrowed:
        console.say(f"{weights} was imported and knows no data: the parity report is made on the pictures of "
                    f"{config.data.source}, without AP; --data takes your own")  # fmt: skip
        data = _unlabelled(data, content["names"])
    check_classes(content["names"], data.names, weights, config.data.source, console)
    calibration = None
    if int8:
        role = "train" if "train" in dataset.roles else split
        (pictures,) = load_splits(dataset, [role], console)
        console.say(f"INT8: calibrated on {min(CALIBRATION, len(pictures.samples))} pictures of the role {role}")
        calibration = _calibration(pictures, config)
    detector = restore_detector(content)
    check_input(detector, config.imgsz)
    model = Readable(fused(detector), request.limits)
    about = {
        "format": format, "precision": "int8" if int8 else "fp32", "outputs": model.outputs,
        "nms": vars(request.limits) if request.limits else None, "size": list(config.imgsz),
        "fixed": fixed_size(model.detector) is not None,
        "flops": sum(layer.flops for layer in summarise(model.detector, config.imgsz)),
    }  # fmt: skip
    preprocess = {**content["preprocess"], "size": list(config.imgsz)}
    text = to_text({**content, "preprocess": preprocess, "config": to_plain(config)}, about)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    console.say(f"{weights} -> {request.out} ({format}, {about['precision']}{', NMS in the graph' * nms})")
    with tempfile.TemporaryDirectory(dir=request.out.parent, prefix=".export-") as folder:
        path = Path(folder) / request.out.name
        share = _write(request, model, text, calibration, path, config)
        rows = prove(path, model, config, data, share, console)
        passed = all(row.passed for row in rows)
        for name in request.files:
            with path.with_name(name).open("rb") as file:
                os.fsync(file.fileno())
            os.replace(path.with_name(name), request.out.with_name(name + ".failed" * (not passed)))
    _show(rows, f"parity of {request.out}", console)
    if json:
        write_json(json, {"file": str(request.out), **about, **to_json(rows)})
    if passed:
        console.say(f"passed: {request.out}")
        return 0
    console.warn(f"the file differs from the checkpoint by more than is allowed: it is kept as {request.out}.failed")
    return 1
