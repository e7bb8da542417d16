"""INT8: static quantisation of an ONNX graph, calibrated on pictures, and how much of the work really runs in INT8.

Weights are quantised per channel, activations per tensor (unsigned, between the 0.001 and 99.999 percentiles of what
the calibration pictures showed). The last convolution before each raw map, and all that decodes, stay in float32: a
step of an 8-bit box coordinate would be seen in the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from yolite.export.extras import need_onnx, openvino_core, quiet
from yolite.structures import Size

_OPERATORS = ["Conv", "Sigmoid", "Mul", "Add", "Concat", "MaxPool", "Resize", "Split", "Relu", "LeakyRelu"]
"""What ONNX Runtime has 8-bit kernels for and networks here are made of."""

AT_ONCE = 8
"""Pictures whose activations are in memory at once during calibration."""


def _body(graph: Any) -> list[str]:
    """Return the names of the nodes that come before the last convolution of each raw map."""
    maker = {name: node for node in graph.node for name in node.output}
    waiting = [output.name for output in graph.output if output.name.startswith("raw_")]
    last, body = {}, {}
    while waiting:
        node = maker.get(waiting.pop())
        if node is not None and node.name not in last:
            if node.op_type == "Conv":
                last[node.name] = node
            else:
                waiting.extend(node.input)
    waiting = [name for node in last.values() for name in node.input]
    while waiting:
        node = maker.get(waiting.pop())
        if node is not None and node.name not in body:
            body[node.name] = node
            waiting.extend(node.input)
    return [node.name for node in graph.node if node.name in body]


def quantised(proto: Any, pictures: Iterator[np.ndarray], folder: Path, for_openvino: bool) -> Any:
    """Quantise an ``onnx.ModelProto``.

    Args:
        proto: The float32 model.
        pictures: Network inputs [1, 3, H, W] float32, all of one size.
        folder: For files on the way.
        for_openvino: Leave the outputs of convolutions in float32: OpenVINO fuses the activation into an 8-bit
            convolution, and with an 8-bit step between the two its results were wrong (2026.4: AP 0.26 for 0.58).
            ONNX Runtime needs that step to run the convolution in 8 bits at all.
    """
    onnx, _ = need_onnx()
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(pictures, None)
            return None if picture is None else {"images": picture}

    options: dict[str, Any] = {"CalibMaxIntermediateOutputs": AT_ONCE}
    if for_openvino:
        options["OpTypesToExcludeOutputQuantization"] = ["Conv"]
    path = folder / "quantised.onnx"
    with quiet():
        q.quantize_static(
            proto, path, Reader(), quant_format=q.QuantFormat.QDQ, per_channel=True,
            activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
            op_types_to_quantize=["Conv"] if for_openvino else _OPERATORS, nodes_to_quantize=_body(proto.graph),
            calibrate_method=q.CalibrationMethod.Percentile, extra_options=options,
        )  # fmt: skip
    made = onnx.load(path)
    path.unlink()
    return made


def _share(flops: dict[str, float], quantised_ones: set[str]) -> float:
    """Return the part of the FLOPs that the named layers do."""
    return float(sum(flops[name] for name in quantised_ones) / sum(flops.values()))


def share_in_onnx(floating: Any, path: Path, size: Size, folder: Path) -> float:
    """Return the share of the convolutions' FLOPs that ONNX Runtime runs in INT8.

    Args:
        floating: The float32 model, for the FLOPs of each convolution.
        path: The quantised file; the graph that ONNX Runtime makes of it on this machine is looked at.
        size: (H, W) of the input.
        folder: For files on the way.
    """
    onnx, runtime = need_onnx()
    fixed = onnx.ModelProto()
    fixed.CopyFrom(floating)
    for dim, value in zip(fixed.graph.input[0].type.tensor_type.shape.dim, (1, 3, *size), strict=True):
        dim.dim_value = value
    del fixed.graph.value_info[:]
    shapes = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in onnx.shape_inference.infer_shapes(fixed).graph.value_info
    }
    weights = {tensor.name: list(tensor.dims) for tensor in fixed.graph.initializer}
    flops = {
        node.input[1]: 2.0 * np.prod(weights[node.input[1]]) * np.prod(shapes[node.output[0]][2:])
        for node in fixed.graph.node
        if node.op_type == "Conv"
    }
    options = runtime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    (folder / "optimised.onnx").unlink()
    names = {node.input[3].removesuffix("_quantized") for node in graph.node if node.op_type == "QLinearConv"}
    return _share(flops, names & flops.keys())


def share_in_openvino(path: Path, size: Size) -> float:
    """Return the share of the convolutions' FLOPs that OpenVINO runs in INT8 on this machine; see `share_in_onnx`."""
    core = openvino_core()
    model = core.read_model(path)
    model.reshape([1, 3, *size])
    flops = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() in ("Convolution", "GroupConvolution"):
            output, kernel = list(node.output(0).get_shape()), list(node.input(1).get_shape())
            flops[node.get_friendly_name()] = 2.0 * np.prod(kernel) * np.prod(output[2:])
    running = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model()
    names: set[str] = set()
    for node in running.get_ops():
        notes = node.get_rt_info()
        if notes["runtimePrecision"].astype(str) in ("i8", "u8"):
            names |= set(notes["originalLayersNames"].astype(str).split(","))
    return _share(flops, names & flops.keys())
