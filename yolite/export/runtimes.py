"""Exported files at work: each runtime as a `Network`, normalised pictures in, raw maps out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolite.checkpoint import restore_specs
from yolite.errors import UserError
from yolite.export.about import KEY, from_text
from yolite.export.extras import need_onnx, need_openvino, openvino_core
from yolite.export.graph import raw_names
from yolite.export.vet import read_program
from yolite.structures import HeadSpec


class Exported:
    """A `Network` that an exported file and its runtime make up.

    Args:
        specs: How each raw map is to be read.
        device: Where its input is to lie.
        fixed: Whether it takes inputs of one size alone.
        run: [B, 3, H, W] float32 on ``device`` → the raw maps, there.
    """

    def __init__(
        self, specs: tuple[HeadSpec, ...], device: torch.device, fixed: bool, run: Callable[[Tensor], list[Tensor]]
    ) -> None:
        self.specs, self.device, self.fixed, self._run = specs, device, fixed, run

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the raw maps of normalised images [B, 3, H, W]."""
        return self._run(images)


Run = Callable[[Tensor], list[Tensor]]
Outputs = Callable[[Mapping[str, Any]], list[str]]
"""Given what a file says of itself, the outputs that are wanted."""


def raw_outputs(about: Mapping[str, Any]) -> list[str]:
    """Want the raw maps alone: what decodes and suppresses in the graph is left out, or costs its time in vain."""
    return raw_names(restore_specs(about))


def _refuse(path: Path, error: Exception) -> UserError:
    """Return the sentence for a file that a runtime cannot read."""
    return UserError(f"{path} cannot be read ({' '.join(str(error).split())[:160]}): export it anew")


def open_onnx(path: Path, device: torch.device, outputs: Outputs) -> tuple[dict[str, Any], Run]:
    """Open an ONNX file with ONNX Runtime.

    Raises:
        UserError: it cannot be read, or its runtime has no such device.
    """
    onnx, runtime = need_onnx()
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own, or the system's
        raise _refuse(path, error) from None
    about = from_text({entry.key: entry.value for entry in proto.metadata_props}.get(KEY), path)
    names = outputs(about)
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" not in runtime.get_available_providers():
            raise UserError(f"{path}: this ONNX Runtime has no CUDA: give --device cpu, or install onnxruntime-gpu")
        providers.insert(
            0,
            (
                "CUDAExecutionProvider",
                {
                    "device_id": device.index or 0,
                    "use_tf32": 0,
                    "cudnn_conv_algo_search": "HEURISTIC",  # sizes change
                },
            ),
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        part = onnx.utils.Extractor(proto).extract_model(["images"], names)
        session = runtime.InferenceSession(part.SerializeToString(), options, providers=providers)
    except Exception as error:  # onnxruntime raises exceptions of C++ by many names
        raise _refuse(path, error) from None
    if device.type == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise UserError(
            f"{path}: ONNX Runtime cannot load its CUDA libraries and would compute on the processor: give --device "
            "cpu, or install the onnxruntime-gpu of this CUDA"
        )

    def run(images: Tensor) -> list[Tensor]:
        found = session.run(names, {"images": images.cpu().numpy()})
        return [torch.from_numpy(value).to(device) for value in found]

    return about, run


def open_openvino(path: Path, device: torch.device, outputs: Outputs) -> tuple[dict[str, Any], Run]:
    """Open an OpenVINO file (.xml, its .bin beside it), computed in float32 or, where it is quantised, in INT8.

    Raises:
        UserError: it cannot be read, or another device than the processor was asked for.
    """
    openvino = need_openvino()
    if device.type != "cpu":
        raise UserError(f"{path} runs on the processor here: give --device cpu")
    core = openvino_core()
    try:
        with path.open("rb") as file:
            if b"<net" not in file.read(1000):  # OpenVINO would try all other formats on it, and print what it thinks
                raise RuntimeError("it is no OpenVINO file")
        model = core.read_model(path)
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    except (RuntimeError, OSError) as error:
        raise _refuse(path, error) from None
    about = from_text(text, path)
    # Without the hint, processors that have bf16 would compute in bf16.
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads(),
             "PERFORMANCE_HINT": "LATENCY"}  # fmt: skip
    names = outputs(about)
    try:
        results = [model.output(name).get_node() for name in names]
        part = openvino.Model(results, model.get_parameters())
        compiled = core.compile_model(part, "CPU", hints)
    except RuntimeError as error:
        raise _refuse(path, error) from None

    def run(images: Tensor) -> list[Tensor]:
        found = compiled(images.numpy())
        return [torch.from_numpy(found[place]) for place in range(len(names))]

    return about, run


def open_program(path: Path, device: torch.device, outputs: Outputs) -> tuple[dict[str, Any], Run]:
    """Open a torch.export file.

    Raises:
        UserError: it cannot be read, or holds more than the data and operators of such a file.
    """
    program, text = read_program(path)
    about = from_text(text, path)
    if device.type == "cuda":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, str(device))
    module = program.module(check_guards=False)
    there = about["export"]["outputs"]
    places = [there.index(name) for name in outputs(about)]

    def run(images: Tensor) -> list[Tensor]:
        found = module(images)
        return [found[place] for place in places]

    return about, run


RUNTIMES = {".onnx": open_onnx, ".xml": open_openvino, ".pt2": open_program}
"""Which runtime a file is for, by its ending."""


def open_exported(path: Path, device: torch.device, outputs: Outputs = raw_outputs) -> tuple[dict[str, Any], Exported]:
    """Open an exported file.

    Args:
        path: .onnx, .xml or .pt2.
        device: Where to run.
        outputs: Which outputs are wanted.

    Returns:
        What it says of itself (see `yolite.export.about`), and the network.

    Raises:
        UserError: missing, damaged, not an export of yolite, its package is missing, or it cannot run on ``device``.
    """
    if not path.is_file():
        raise UserError(f"weights {path} do not exist: give a checkpoint, a run folder or an exported file")
    about, run = RUNTIMES[path.suffix](path, device, outputs)
    return about, Exported(restore_specs(about), device, bool(about["export"].get("fixed")), run)
