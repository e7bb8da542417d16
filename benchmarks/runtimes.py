"""The forward pass of exported files through ONNX Runtime and OpenVINO: yolite's beside a peer's.

    yolite export --weights W --format onnx --out KEPT/yolite-n.onnx           # and --format openvino
    PYTHON -c "from ultralytics import YOLO; YOLO('P.pt').export(format='onnx', dynamic=True)"
    python benchmarks/runtimes.py KEPT/yolite-n.onnx KEPT/yolov8n.onnx KEPT/yolite-n.xml KEPT/yolov8n.xml

One random picture of 320x320 and of 640x640 px, float32, decoded boxes and scores, no NMS, as many threads for all. The
files take turns, a round each; the median of all rounds' medians is printed. Time it on an otherwise idle machine. The
table's rows go to benchmarks/results/runtimes.json; a file that has its row is not timed again. The peer's .xml is of
`YOLO('P.pt').export(format='openvino', dynamic=True)`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from peer import THREADS
from rows import RESULTS, Row, add, finished, moment, read
from speed import SIZES, median_ms

from yolite.export.extras import need_onnx, need_openvino, openvino_core

Run = Callable[[np.ndarray], object]
WANTED = ("boxes", "scores")
"""Of yolite's file, which has the raw maps too; another's outputs are all wanted."""


def open_onnx(path: Path, threads: int) -> Run:
    """Open a file with ONNX Runtime."""
    _, onnxruntime = need_onnx()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    names = [out.name for out in session.get_outputs()]
    names = [name for name in names if name in WANTED] or names
    return lambda x: session.run(names, {source.name: x})


def open_openvino(path: Path, threads: int) -> Run:
    """Open a file with OpenVINO, float32 (by itself it computes in bf16 where the processor has it)."""
    openvino, core = need_openvino(), openvino_core()
    model = core.read_model(path)
    outputs = [out for out in model.outputs if set(WANTED) & out.get_names()] or model.outputs
    part = openvino.Model([out.get_node() for out in outputs], model.get_parameters())
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled: Run = core.compile_model(part, "CPU", hints)
    return compiled


OPEN = {".onnx": open_onnx, ".xml": open_openvino}


def main() -> None:
    """Measure all files and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help=".onnx and .xml")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--results", type=Path, default=RESULTS / "runtimes.json", help="file of the rows")
    given = parser.parse_args()
    about = moment(given.threads)
    todo = [path for path in given.files if not finished(given.results, {"file": path.name})]
    runs = {path: OPEN[path.suffix](path, given.threads) for path in todo}
    pictures = {size: np.random.default_rng(0).random((1, 3, size, size), np.float32) for size in SIZES}
    times: dict[tuple[Path, int], list[float]] = {}
    for _ in range(given.rounds):
        for size, picture in pictures.items():
            for path, run in runs.items():
                times.setdefault((path, size), []).append(median_ms(lambda run=run, x=picture: run(x)))  # type: ignore[misc]
    for path in runs:
        found = {str(size): round(statistics.median(times[path, size]), 2) for size in SIZES}
        add(given.results, {"file": path.name, "rounds": given.rounds, "forward_ms": found, **about})
    show(read(given.results))


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    print("| file | forward ms, 320 px | 640 px |\n|---|---|---|")
    for row in rows:
        print(f"| {row['file']} | {row['forward_ms']['320']:.1f} | {row['forward_ms']['640']:.1f} |")


if __name__ == "__main__":
    main()
