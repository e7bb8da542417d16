"""A second reading of Darknet's files, for tests: an interpreter that runs a .cfg straight from the numbers' bytes.

Written from Darknet's source (github.com/AlexeyAB/darknet, src/parser.c and src/*_layer.c) and sharing nothing with
`yolite.darknet`: float64, one picture, one section after the other.
"""

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.test_plain import darknet_reorg

Options = dict[str, str]
ACTIVATIONS = {
    "linear": lambda x: x, "leaky": lambda x: torch.where(x > 0, x, 0.1 * x), "relu": torch.relu, "mish": F.mish,
    "logistic": torch.sigmoid, "swish": lambda x: x * torch.sigmoid(x), "tanh": torch.tanh, "relu6": F.relu6,
}  # fmt: skip


def sections(text: str) -> list[tuple[str, Options]]:
    out: list[tuple[str, Options]] = []
    for line in text.replace(" ", "").splitlines():
        if line.startswith("["):
            out.append((line[1:-1], {}))
        elif line and line[0] not in "#;":
            out[-1][1].update([line.split("=")])
    return out


def numbers_needed(kind: str, o: Options, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes of a section's arrays in the order of the file; ``shape`` (C, H, W) is what it reads."""
    c, h, w = shape
    bn = o.get("batch_normalize") == "1"
    if kind == "convolutional":
        n, k = int(o["filters"]), int(o["size"])
        return [(n,), *[(n,)] * (3 * bn), (n, c // int(o.get("groups", 1)), k, k)]
    if kind == "connected":
        n = int(o["output"])
        return [(n,), (n, c * h * w), *[(n,)] * (3 * bn)]
    if kind == "local":
        n, k = int(o["filters"]), int(o["size"])
        rows, columns = (side if o.get("pad") == "1" else side - k + 1 for side in (h, w))
        return [(n, rows, columns), (rows * columns, n, c * k * k)]
    return []


def normalised(x: Tensor, bias: Tensor, scale: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    view = (-1, 1, 1)
    return (x - mean.view(view)) / (variance.view(view) + 1e-6).sqrt() * scale.view(view) + bias.view(view)


def compute(kind: str, o: Options, x: Tensor, maps: list[Tensor], values: list[Tensor]) -> Tensor:
    """Return the map [C, H, W] of one section."""
    here = len(maps)
    listed = o.get("layers", o.get("from"))
    others = [maps[int(i) if int(i) >= 0 else here + int(i)] for i in listed.split(",")] if listed else []
    act = ACTIVATIONS[o.get("activation", "linear")]
    if kind == "convolutional":
        k, step = int(o["size"]), int(o.get("stride", 1))
        padding = k // 2 if o.get("pad") == "1" else int(o.get("padding", 0))
        d = int(o.get("dilation", 1))
        y = F.conv2d(x[None], values[-1], None, step, padding * d, d, int(o.get("groups", 1)))[0]
        y = normalised(y, *values[:4]) if len(values) > 2 else y + values[0].view(-1, 1, 1)
        return act(y)
    if kind == "connected":
        y = (values[1] @ x.flatten()).view(-1, 1, 1)
        return act(normalised(y, values[0], *values[2:]) if len(values) > 2 else y + values[0].view(-1, 1, 1))
    if kind == "local":
        rows, columns = values[0].shape[1:]
        k, pad = int(o["size"]), int(o.get("pad", 0))
        padded, y = F.pad(x, (pad,) * 4), torch.zeros_like(values[0])
        for place in range(rows * columns):
            r, c = divmod(place, columns)
            y[:, r, c] = values[1][place] @ padded[:, r : r + k, c : c + k].flatten()
        return act(y + values[0])
    if kind == "maxpool":
        k, step = int(o["size"]), int(o["stride"])
        before = (k - 1) // 2
        return F.max_pool2d(F.pad(x, (before, k - 1 - before) * 2, value=-1e30), k, step)
    if kind == "route":
        groups, group = int(o.get("groups", 1)), int(o.get("group_id", 0))
        return torch.cat([m[len(m) // groups * group : len(m) // groups * (group + 1)] for m in others])
    if kind == "shortcut":
        y = x.clone()
        for other in others:
            shared = min(len(y), len(other))
            y[:shared] += other[:shared]
        return act(y)
    if kind in ("scale_channels", "sam"):
        return act(others[0] * x)
    if kind == "reorg":
        return torch.from_numpy(darknet_reorg(x.numpy(), int(o["stride"])))
    if kind == "upsample":
        s = int(o["stride"])
        return x.repeat_interleave(s, 1).repeat_interleave(s, 2)
    if kind == "avgpool":
        return x.mean((1, 2), keepdim=True)
    return x  # dropout, and the decoders: their input is what is compared


def run(cfg: str, numbers: np.ndarray, x: Tensor) -> dict[int, Tensor]:
    """Run a picture [3, H, W] through the network; return what each decoder reads, by its number in the file."""
    maps: list[Tensor] = []
    out, at = {}, 0
    for kind, o in sections(cfg)[1:]:
        above = maps[-1] if maps else x.double()
        values = []
        for shape in numbers_needed(kind, o, tuple(above.shape)):
            size = int(np.prod(shape))
            values.append(torch.from_numpy(numbers[at : at + size].astype(np.float64)).view(shape))
            at += size
        if kind in ("yolo", "region", "detection"):
            out[len(maps)] = above
        maps.append(compute(kind, o, above, maps, values))
    assert at == len(numbers), "every number has its place"
    return out


def drawn_values(kind: str, o: Options, above: Tensor, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw the arrays of one section; batch norm's mean and variance are those of what the picture gives."""
    values = []
    for shape in numbers_needed(kind, o, tuple(above.shape)):
        spread = np.prod(shape[1:]) ** -0.5 if kind != "local" else shape[-1] ** -0.5
        values.append(rng.normal(0, spread, shape) if len(shape) > 1 else rng.normal(0.3, 0.3, shape))
    if len(values) > 2:
        kernel = 1 if kind == "connected" else 4
        plain = [torch.zeros(len(values[0]), dtype=torch.float64), torch.from_numpy(values[kernel])]
        y = compute(kind, {**o, "activation": "linear"}, above, [], plain).flatten(1)
        statistics = [rng.uniform(0.7, 1.3, len(y)), y.mean(1).numpy(), y.var(1, correction=0).numpy()]
        if kind == "connected":  # one number a channel has no variance
            statistics[1:] = [rng.normal(0, 0.2, len(y)), rng.uniform(0.5, 1.5, len(y))]
        values[-3:] = statistics if kind == "connected" else [*statistics[1:], values[4]]
        if kind != "connected":
            values[1] = statistics[0]
    return [v.astype(np.float32) for v in values]


def draw(cfg: str, path: Path, seed: int = 0, version: tuple[int, int, int] = (0, 2, 5)) -> np.ndarray:
    """Write random weights for a .cfg by hand, and return them.

    Every layer's output differs from place to place: in a network that has died out any mistake would go unseen.
    """
    rng = np.random.default_rng(seed)
    net = sections(cfg)[0][1]
    maps: list[Tensor] = []
    parts: list[np.ndarray] = []
    above = torch.from_numpy(rng.uniform(0, 1, (3, int(net["height"]), int(net["width"]))))
    for kind, o in sections(cfg)[1:]:
        values = drawn_values(kind, o, above, rng)
        above = compute(kind, o, above, maps, [torch.from_numpy(v.astype(np.float64)) for v in values])
        assert above.std() > 0.02, f"layer {len(maps)} ({kind}) has died out"
        maps.append(above)
        parts += [v.ravel() for v in values]
    numbers = np.concatenate(parts)
    seen = struct.pack("<Q" if version[0] * 10 + version[1] >= 2 else "<I", 1234)
    path.write_bytes(struct.pack("<iii", *version) + seen + numbers.tobytes())
    return numbers
