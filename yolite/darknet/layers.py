"""What each kind of section computes: a block of `yolite.models` with its arguments, and the shape of its map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from yolite.darknet.cfg import Section
from yolite.darknet.heads import check_channels
from yolite.errors import nearest
from yolite.models.conv import ACTIVATIONS
from yolite.structures import Size

Row = dict[str, Any]
Shape = tuple[int, int, int]
"""(channels, H, W) of a map at the input size of the file."""

EPS = 1e-6
"""Added to the variance by batch norm, as OpenCV does; Darknet adds it to the root, and its later fork 1e-5 to the
variance. The difference is of the order of 1e-3 of an output (benchmarks/darknet_parity.py tells them apart)."""
DECODERS = ("yolo", "region", "detection")
HEADS = ("conv_head", "cell_head")
_ACTIVATIONS = {"swish": "silu", "revleaky": "leaky"}
"""Where the two projects use different words (Darknet's revleaky differs from leaky in its gradient alone)."""


@dataclass
class Layer:
    """What a section becomes: a block, the layers it reads (−1: the picture), its arguments, its map."""

    block: str
    sources: Sequence[int]
    arguments: Row
    shape: Shape


@dataclass
class State:
    """How far the file has been read.

    Attributes:
        size: (H, W) of the input in px.
        shapes: Map of each layer so far.
        names: Name of each; empty for heads and decoders, which no other layer can read.
        following: The section after the one that is read.
    """

    size: Size
    shapes: list[Shape] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    following: Section | None = None

    def shape(self, index: int) -> Shape:
        """Return the shape of a layer's map, or (−1) of the picture."""
        return (3, *self.size) if index < 0 else self.shapes[index]

    def above(self, section: Section) -> int:
        """Return the layer above, which most sections read."""
        return self._plain(section, len(self.shapes) - 1)

    def earlier(self, section: Section, key: str) -> list[int]:
        """Return the layers that an option names: from 0 on, or (below 0) counted back from this one."""
        here, out = len(self.shapes), []
        for number in section.integers(key):
            index = number if number >= 0 else here + number
            if not 0 <= index < here:
                section.fail(f"{key}={section.options[key]} means layer {index}, but this is layer {here}: only layers "
                             f"0 to {here - 1} stand before it")  # fmt: skip
            out.append(self._plain(section, index))
        if not out:
            section.fail(f"{key} names no layer")
        return out

    def _plain(self, section: Section, index: int) -> int:
        if index >= 0 and not self.names[index]:
            section.fail(f"it reads layer {index}, whose numbers are boxes: nothing can be computed from them")
        return index


def _activation(section: Section, default: str) -> str:
    """Return yolite's name of an activation."""
    name = section.text("activation", default)
    name = _ACTIVATIONS.get(name, name)
    if name not in ACTIVATIONS:
        section.fail(f"activation={name} is not known{nearest(name, ACTIVATIONS)}")
    return name


def _stride(section: Section, default: int = 1) -> int:
    """Return the stride, which must be the same in both directions."""
    stride = section.integer("stride", default, 1)
    both = {section.integer(key, stride, 1) for key in ("stride_x", "stride_y")}
    if len(both) > 1:
        section.fail("stride_x and stride_y differ: only one stride for both directions is read")
    return both.pop()


def _convolutional(state: State, section: Section) -> Layer:
    source, kernel, stride = state.above(section), section.integer("size", 1, 1), _stride(section)
    if state.following and state.following.name in DECODERS:
        return _conv_head(state, section, state.following)
    channels, *sides = state.shape(source)
    dilation = section.integer("dilation", 1, 1) if kernel > 1 else 1
    padding = kernel // 2 if section.integer("pad", 0) else section.integer("padding", 0)
    out, groups = section.integer("filters", 1, 1), section.integer("groups", 1, 1)
    if channels % groups or out % groups:
        section.fail(f"groups={groups} divides not both its {channels} inputs and its {out} filters")
    arguments: Row = {"out": out, "kernel": kernel, "act": _activation(section, "logistic")}
    arguments |= {"eps": EPS} if section.integer("batch_normalize", 0) else {"norm": "none"}
    options = {"stride": (stride, 1), "groups": (groups, 1), "dilation": (dilation, 1),
               "padding": (padding * dilation, kernel // 2 * dilation)}  # fmt: skip
    arguments |= {key: value for key, (value, usual) in options.items() if value != usual}
    height, width = ((side + 2 * padding * dilation - dilation * (kernel - 1) - 1) // stride + 1 for side in sides)
    return Layer("conv", [source], arguments, (out, height, width))


def _conv_head(state: State, section: Section, decoder: Section) -> Layer:
    """Read the convolution whose numbers a decoder reads."""
    source, kernel = state.above(section), section.integer("size", 1, 1)
    wanted = "logistic" if decoder.integer("new_coords", 0) else "linear"
    plain = {"batch_normalize": 0, "groups": 1, "stride": 1, "stride_x": 1, "stride_y": 1, "dilation": 1}
    plain |= {} if section.integer("pad", 0) else {"padding": 0}  # with pad=1 Darknet does not look at it
    odd = [key for key, usual in plain.items() if section.integer(key, usual) != usual]
    if odd or _activation(section, "logistic") != wanted or (kernel > 1 and not section.integer("pad", 0)):
        section.fail(f"the convolution before [{decoder.name}] must have pad=1, activation={wanted}, and neither "
                     "batch_normalize nor groups, stride or dilation")  # fmt: skip
    out = section.integer("filters", 1, 1)
    check_channels(section, "filters", out, decoder)
    return Layer("conv_head", [source], {"kernel": kernel}, (out, *state.shape(source)[1:]))


def _connected(state: State, section: Section) -> Layer:
    source, out = state.above(section), section.integer("output", 1, 1)
    size = list(state.shape(source)[1:])
    norm = bool(section.integer("batch_normalize", 0))
    act = _activation(section, "logistic")
    if state.following and state.following.name in DECODERS:
        if norm or act != "linear" or state.following.name != "detection":
            section.fail("the connected layer before a decoder must be linear, without batch_normalize, and the "
                         "decoder be [detection]")  # fmt: skip
        side = state.following.integer("side", 7, 1)
        check_channels(section, "output", out, state.following)
        grid = {} if size == [side, side] else {"grid": [side, side]}
        return Layer("cell_head", [source], {"size": size, **grid}, (out // side**2, side, side))
    arguments = {"out": out, "size": size, "act": act, **({"norm": "bn", "eps": EPS} if norm else {})}
    return Layer("connected", [source], arguments, (out, 1, 1))


def _local(state: State, section: Section) -> Layer:
    source, kernel, stride = state.above(section), section.integer("size", 1, 1), section.integer("stride", 1, 1)
    padding, out = section.integer("pad", 0), section.integer("filters", 1, 1)
    if padding and (padding, kernel) != (1, 3):  # Darknet's own sizes do not fit each other then
        section.fail(f"pad={padding} with size={kernel}: only pad=0, or pad=1 with size=3, can be read")
    _, *sides = state.shape(source)
    arguments = {"out": out, "size": sides, "kernel": kernel, "stride": stride, "padding": padding,
                 "act": _activation(section, "logistic")}  # fmt: skip
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in sides)
    return Layer("local", [source], arguments, (out, height, width))


def _maxpool(state: State, section: Section) -> Layer:
    source, stride = state.above(section), _stride(section)
    kernel = section.integer("size", stride, 1)
    padding = section.integer("padding", kernel - 1)
    channels, *sides = state.shape(source)
    height, width = ((side + padding - kernel) // stride + 1 for side in sides)
    arguments: Row = {"kernel": kernel, "stride": stride}
    if padding != kernel - 1:
        arguments["padding"] = padding
    return Layer("maxpool", [source], arguments, (channels, height, width))


def _avgpool(state: State, section: Section) -> Layer:
    source = state.above(section)
    return Layer("avgpool", [source], {}, (state.shape(source)[0], 1, 1))


def _upsample(state: State, section: Section) -> Layer:
    source, scale = state.above(section), section.integer("stride", 2, 1)
    channels, height, width = state.shape(source)
    return Layer("upsample", [source], {"scale": scale}, (channels, height * scale, width * scale))


def _reorg(state: State, section: Section) -> Layer:
    source, stride = state.above(section), section.integer("stride", 1, 1)
    channels, height, width = state.shape(source)
    if channels % stride**2 or height % stride or width % stride:
        section.fail(f"stride={stride} does not divide its map of {channels}x{height}x{width}")
    shape = (channels * stride**2, height // stride, width // stride)
    return Layer("reorg", [source], {"stride": stride}, shape)


def _dropout(state: State, section: Section) -> Layer:
    source, chance = state.above(section), section.number("probability", 0.5)
    if not 0 <= chance < 1:
        section.fail(f"probability={chance} is no share from 0 to below 1")
    return Layer("dropout", [source], {"chance": chance}, state.shape(source))


def _route(state: State, section: Section) -> Layer:
    sources = state.earlier(section, "layers")
    groups, group = section.integer("groups", 1, 1), section.integer("group_id", 0)
    shapes = [state.shape(i) for i in sources]
    if len({shape[1:] for shape in shapes}) > 1:
        section.fail(f"its maps differ in size: {', '.join(shown(shape) for shape in shapes)}")
    if group >= groups or any(shape[0] % groups for shape in shapes):
        section.fail(f"group_id={group} of groups={groups} is not there in {', '.join(shown(s) for s in shapes)}")
    shape = (sum(shape[0] // groups for shape in shapes), *shapes[0][1:])
    if groups == 1:
        return Layer("concat", sources, {}, shape)
    return Layer("slice", sources, {"groups": groups, "group": group}, shape)


def _shortcut(state: State, section: Section) -> Layer:
    sources = [state.above(section), *state.earlier(section, "from")]
    shapes = [state.shape(i) for i in sources]
    if len({shape[1:] for shape in shapes}) > 1:
        section.fail(f"its maps differ in size: {', '.join(shown(shape) for shape in shapes)}")
    return Layer("shortcut", sources, _unless_linear(section), shapes[0])


def _product(state: State, section: Section) -> Layer:
    """Read scale_channels (the layer above holds one weight a channel) or sam (one a number)."""
    sources = [state.above(section), *state.earlier(section, "from")]
    weights, scaled = state.shape(sources[0]), state.shape(sources[1])
    fits = weights == scaled if section.name == "sam" else weights == (scaled[0], 1, 1)
    if len(sources) > 2 or not fits:
        section.fail(f"a map of {shown(weights)} cannot weigh one of {shown(scaled)}")
    return Layer("multiply", sources, _unless_linear(section), scaled)


def _unless_linear(section: Section) -> Row:
    act = _activation(section, "linear")
    return {} if act == "linear" else {"act": act}


def shown(shape: Shape) -> str:
    """Return CxHxW."""
    return "x".join(map(str, shape))


READERS: dict[str, Callable[[State, Section], Layer]] = {
    "convolutional": _convolutional, "connected": _connected, "local": _local, "maxpool": _maxpool, "avgpool": _avgpool,
    "upsample": _upsample, "reorg": _reorg, "dropout": _dropout, "route": _route, "shortcut": _shortcut,
    "scale_channels": _product, "sam": _product,
}  # fmt: skip
LEARNED = ("convolutional", "connected", "local")
