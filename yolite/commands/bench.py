"""``yolite bench``: how fast each installed backend answers, and where the time goes."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from yolite.build import build_preprocess
from yolite.checkpoint import find_weights, load_checkpoint, restore_detector
from yolite.commands.common import config_of_weights, settings_of_use
from yolite.console import Console
from yolite.devices import half_type
from yolite.errors import UserError
from yolite.export.about import to_text
from yolite.export.extras import need_onnx, need_openvino
from yolite.export.graph import Readable, fixed_size, trace
from yolite.export.measure import STEPS, Job, measure
from yolite.export.runtimes import RUNTIMES, open_exported
from yolite.export.write import to_onnx, write_onnx, write_openvino
from yolite.files import check_writable, write_json
from yolite.inference import check_input
from yolite.models.detector import fused
from yolite.models.summary import summarise
from yolite.reading import build_dataset, load_split
from yolite.settings import make_config
from yolite.structures import Size
from yolite.weights import choose_device

PICTURES = 64
"""Most pictures that are read in turn."""
_RUNTIME = {".onnx": "onnxruntime", ".xml": "openvino", ".pt2": "torch.export"}


def _installed(console: Console) -> list[str]:
    """Return the runtimes beside PyTorch that are there; say which are not."""
    found = []
    for suffix, need in ((".onnx", need_onnx), (".xml", need_openvino)):
        try:
            need()
            found.append(suffix)
        except UserError as error:
            console.say(f"{_RUNTIME[suffix]} is not measured: {error}")
    return found


def _exported(content: Mapping[str, Any], suffixes: Sequence[str], folder: Path) -> dict[str, Path]:
    """Export a checkpoint, unproved, to be measured and thrown away; return {suffix: file}."""
    if not suffixes:
        return {}
    model = Readable(fused(restore_detector(content)))
    text = to_text(content, {"outputs": model.outputs, "fixed": fixed_size(model.detector) is not None})
    proto = to_onnx(trace(model), model)
    write = {".onnx": write_onnx, ".xml": write_openvino}
    paths = {suffix: folder / f"bench{suffix}" for suffix in suffixes}
    for suffix, path in paths.items():
        write[suffix](proto, text, path)
    return paths


def _jobs(
    weights: Path, content: Mapping[str, Any], device: torch.device, folder: Path, console: Console
) -> list[tuple[str, str, Path]]:
    """Return what is measured: (name, variant of PyTorch or "", file)."""
    if weights.suffix in RUNTIMES:
        return [(f"{_RUNTIME[weights.suffix]} {content['export'].get('precision', 'fp32')}", "", weights)]
    variants = ["fp32", "fp32 channels_last"]
    try:
        half_type(device)
        variants.append("half")
    except UserError as error:
        console.say(f"torch half is not measured: {error}")
    jobs = [(f"torch {name}", name, weights) for name in variants]
    console.say("exporting for the runtimes that are installed")
    files = _exported(content, _installed(console), folder)
    return jobs + [(f"{_RUNTIME[suffix]} fp32", "", path) for suffix, path in files.items()]


def _flops(weights: Path, content: Mapping[str, Any], size: Size) -> float:
    """Return the FLOPs of one picture of ``size``; of convolutions they grow with its area.

    Raises:
        UserError: the network's input size is fixed to another.
    """
    if weights.suffix not in RUNTIMES:
        detector = restore_detector(content)
        check_input(detector, size)
        return float(sum(layer.flops for layer in summarise(detector, size)))
    about = content["export"]
    return float(about["flops"]) * size[0] * size[1] / (about["size"][0] * about["size"][1])


def _measured(job: Job) -> dict[str, Any]:
    """Measure in a process of its own, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure, job).result()
        except BrokenProcessPool:
            raise UserError("its process was killed (no memory left?)") from None


def _show(rows: Sequence[Mapping[str, Any]], title: str, console: Console) -> None:
    """Print one row a backend."""
    columns = ["backend", "p50 ms", "p95 ms", "images/s", "peak MiB", *STEPS, "GFLOP/s"]
    table = [
        [row["backend"], f"{row['p50_ms']:.1f}", f"{row['p95_ms']:.1f}", f"{row['images_per_second']:.1f}",
         f"{row['peak_mib']:.0f}", *(f"{row['share'][step]:.0%}" for step in STEPS), f"{row['gflops_per_second']:.0f}"]
        for row in rows
    ]  # fmt: skip
    console.table(title, columns, table)


def bench_weights(
    weights: str, split: str, options: Mapping[str, Any], words: Sequence[str], json: Path | None
) -> None:
    """Measure every installed backend on validation pictures, one at a time, from the file to the boxes.

    Raises:
        UserError: unreadable weights or data, or a backend that fails.
    """
    settings = settings_of_use(words, ["data", "imgsz", "device"], "bench", "the weights have their own")
    if json:
        check_writable(json, "--json")
    console, path = Console(), Path(weights)
    device = choose_device(weights, make_config({"device": "auto"}, options, settings).device)
    if path.suffix in RUNTIMES and not path.is_dir():
        content, _ = open_exported(path, device)
    else:
        path = find_weights(weights)
        content = load_checkpoint(path)
    config = config_of_weights(content["config"], options, settings)
    pictures = [s.path for s in load_split(build_dataset(config, console), split, console).samples if s.path]
    pictures = pictures[:: max(1, len(pictures) // PICTURES)][:PICTURES]
    size, rows = build_preprocess(config).size, []
    flops = _flops(path, content, size)
    with tempfile.TemporaryDirectory() as folder, console.track("measuring") as progress:
        jobs = _jobs(path, content, device, Path(folder), console)
        for done, (name, variant, file) in enumerate(jobs):
            progress(done, len(jobs))
            on = device if variant or file == path else torch.device("cpu")
            row = _measured(Job(str(file), variant, str(on), size, [str(p) for p in pictures], torch.get_num_threads()))
            rows.append({"backend": f"{name}{f' ({on})' * (on.type != 'cpu')}", **row,
                         "gflops_per_second": flops / (size[0] * size[1]) * row["px_per_second"] / 1e9})  # fmt: skip
    _show(rows, f"{weights}, input {size[0]}x{size[1]}", console)
    console.say(
        f"{flops / 1e9:.2f} GFLOPs a picture that fills the input (a multiply-add counts as 2); "
        f"{torch.get_num_threads()} threads, {len(pictures)} pictures in turn, one at a time, each backend in a "
        "process of its own; p50 and p95 from the file to the boxes, GFLOP/s of the forward pass alone, peak memory "
        "of the whole process"
    )
    if json:
        write_json(json, {"weights": weights, "size": list(size), "flops": flops, "threads": torch.get_num_threads(),
                          "torch": torch.__version__, "backends": rows})  # fmt: skip
