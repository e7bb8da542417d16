"""From the sections of a .cfg to the rows of a model config: one row a layer, named after its section and number.

Numbers count as Darknet counts them: the first section after ``[net]`` is layer 0. The sections that decode
(``yolo``, ``region``, ``detection``) compute nothing here: they say how the layer before them, the head, is to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from yolite.darknet.cfg import Section
from yolite.darknet.heads import Head, check_channels, read_head
from yolite.errors import nearest
from yolite.models.conv import ACTIVATIONS
from yolite.structures import Size

Row = dict[str, Any]
Shape = tuple[int, int, int]
"""(channels, H, W) of a map at the input size of the file."""

EPS = 1e-6
"""Added to the variance by batch norm, as OpenCV does; Darknet adds it to the root, and its later fork 1e-5 to the
variance. The difference is of the order of 1e-3 of an output (benchmarks/darknet_parity.py tells them apart)."""
_ALIASES = {"conv": "convolutional", "max": "maxpool", "avg": "avgpool", "conn": "connected"}
_DECODERS = ("yolo", "region", "detection")
_ACTIVATIONS = {"swish": "silu", "revleaky": "leaky"}
"""Where the two projects use different words (Darknet's revleaky differs from leaky in its gradient alone)."""
_FIXED: dict[str, dict[str, str]] = {
    "": {"dontload": "0", "dontloadscales": "0"},
    "convolutional": dict.fromkeys(
        ("flipped", "binary", "xnor", "antialiasing", "sway", "rotate", "stretch", "stretch_sway", "coordconv"), "0"
    )
    | {"share_index": ""},
    "maxpool": {"maxpool_depth": "0", "antialiasing": "0"},
    "reorg": {"reverse": "0", "flatten": "0", "extra": "0"},
    "shortcut": {"weights_type": "none"},
    "upsample": {"scale": "1"},
    "scale_channels": {"scale_wh": "0"},
}
"""Options that would change what a layer computes, each with the one value that is read."""


@dataclass(frozen=True)
class Network:
    """A network file in yolite's terms.

    Attributes:
        size: (H, W) of the input in px.
        letterbox: Whether pictures keep their aspect ratio (``letter_box=1``); Darknet stretches them otherwise.
        backbone, neck, head: Rows of a model config; the neck begins with the first upsampling.
        code: The ``code`` section of a model config.
        classes: Number of classes.
        learned: Names of the layers that have numbers in a .weights file, in its order.
        sections: Number of layers in the file, decoders included.
    """

    size: Size
    letterbox: bool
    backbone: list[Row]
    neck: list[Row]
    head: list[Row]
    code: dict[str, Any]
    classes: int
    learned: list[str]
    sections: int


@dataclass
class _Layer:
    """What a section becomes: a block, the layers it reads (−1: the picture), its arguments, its map."""

    block: str
    sources: Sequence[int]
    arguments: Row
    shape: Shape


@dataclass
class _State:
    """How far the file has been read."""

    size: Size
    shapes: list[Shape] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    following: Section | None = None

    def shape(self, index: int) -> Shape:
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
            section.fail(f"it reads layer {index}, which decodes boxes: nothing can be computed from that")
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


def _convolutional(state: _State, section: Section) -> _Layer:
    source, kernel, stride = state.above(section), section.integer("size", 1, 1), _stride(section)
    if state.following and state.following.name in _DECODERS:
        return _conv_head(state, section, state.following)
    channels, *sides = state.shape(source)
    dilation = section.integer("dilation", 1, 1) if kernel > 1 else 1
    padding = kernel // 2 if section.integer("pad", 0) else section.integer("padding", 0)
    out, groups = section.integer("filters", 1, 1), section.integer("groups", 1, 1)
    if channels % groups or out % groups:
        section.fail(f"groups={groups} divides not both its {channels} inputs and its {out} filters")
    arguments: Row = {"out": out, "kernel": kernel, "act": _activation(section, "logistic")}
    arguments |= {"norm": "bn", "eps": EPS} if section.integer("batch_normalize", 0) else {"norm": "none"}
    options = {"stride": (stride, 1), "groups": (groups, 1), "dilation": (dilation, 1),
               "padding": (padding * dilation, kernel // 2 * dilation)}  # fmt: skip
    arguments |= {key: value for key, (value, usual) in options.items() if value != usual}
    height, width = ((side + 2 * padding * dilation - dilation * (kernel - 1) - 1) // stride + 1 for side in sides)
    return _Layer("conv", [source], arguments, (out, height, width))


def _conv_head(state: _State, section: Section, decoder: Section) -> _Layer:
    """Read the convolution whose numbers a decoder reads."""
    source, kernel = state.above(section), section.integer("size", 1, 1)
    wanted = "logistic" if decoder.integer("new_coords", 0) else "linear"
    plain = {"batch_normalize": 0, "groups": 1, "stride": 1, "dilation": 1, "pad": section.integer("pad", 0)}
    odd = [key for key, usual in plain.items() if section.integer(key, usual) != usual]
    if odd or _activation(section, "logistic") != wanted or (kernel > 1 and not section.integer("pad", 0)):
        section.fail(f"the convolution before [{decoder.name}] must have pad=1, activation={wanted}, and neither "
                     "batch_normalize nor groups, stride or dilation")  # fmt: skip
    out = section.integer("filters", 1, 1)
    check_channels(section, "filters", out, decoder)
    return _Layer("conv_head", [source], {"kernel": kernel}, (out, *state.shape(source)[1:]))


def _connected(state: _State, section: Section) -> _Layer:
    source, out = state.above(section), section.integer("output", 1, 1)
    size = list(state.shape(source)[1:])
    norm = bool(section.integer("batch_normalize", 0))
    act = _activation(section, "logistic")
    if state.following and state.following.name in _DECODERS:
        if norm or act != "linear" or state.following.name != "detection":
            section.fail("the connected layer before a decoder must be linear, without batch_normalize, and the "
                         "decoder be [detection]")  # fmt: skip
        side = state.following.integer("side", 7, 1)
        check_channels(section, "output", out, state.following)
        grid = {} if size == [side, side] else {"grid": [side, side]}
        return _Layer("cell_head", [source], {"size": size, **grid}, (out // side**2, side, side))
    arguments = {"out": out, "size": size, "act": act, **({"norm": "bn", "eps": EPS} if norm else {})}
    return _Layer("connected", [source], arguments, (out, 1, 1))


def _local(state: _State, section: Section) -> _Layer:
    source, kernel, stride = state.above(section), section.integer("size", 1, 1), section.integer("stride", 1, 1)
    padding, out = section.integer("pad", 0), section.integer("filters", 1, 1)
    if padding and (padding, kernel) != (1, 3):  # Darknet's own sizes do not fit each other then
        section.fail(f"pad={padding} with size={kernel}: only pad=0, or pad=1 with size=3, can be read")
    _, *sides = state.shape(source)
    arguments = {"out": out, "size": sides, "kernel": kernel, "stride": stride, "padding": padding,
                 "act": _activation(section, "logistic")}  # fmt: skip
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in sides)
    return _Layer("local", [source], arguments, (out, height, width))


def _maxpool(state: _State, section: Section) -> _Layer:
    source, stride = state.above(section), _stride(section)
    kernel = section.integer("size", stride, 1)
    padding = section.integer("padding", kernel - 1)
    channels, *sides = state.shape(source)
    height, width = ((side + padding - kernel) // stride + 1 for side in sides)
    arguments: Row = {"kernel": kernel, "stride": stride}
    if padding != kernel - 1:
        arguments["padding"] = padding
    return _Layer("maxpool", [source], arguments, (channels, height, width))


def _avgpool(state: _State, section: Section) -> _Layer:
    source = state.above(section)
    return _Layer("avgpool", [source], {}, (state.shape(source)[0], 1, 1))


def _upsample(state: _State, section: Section) -> _Layer:
    source, scale = state.above(section), section.integer("stride", 2, 1)
    channels, height, width = state.shape(source)
    return _Layer("upsample", [source], {"scale": scale}, (channels, height * scale, width * scale))


def _reorg(state: _State, section: Section) -> _Layer:
    source, stride = state.above(section), section.integer("stride", 1, 1)
    channels, height, width = state.shape(source)
    if channels % stride**2 or height % stride or width % stride:
        section.fail(f"stride={stride} does not divide its map of {channels}x{height}x{width}")
    shape = (channels * stride**2, height // stride, width // stride)
    return _Layer("reorg", [source], {"stride": stride}, shape)


def _dropout(state: _State, section: Section) -> _Layer:
    source, chance = state.above(section), section.number("probability", 0.5)
    if not 0 <= chance < 1:
        section.fail(f"probability={chance} is no share from 0 to below 1")
    return _Layer("dropout", [source], {"chance": chance}, state.shape(source))


def _route(state: _State, section: Section) -> _Layer:
    sources = state.earlier(section, "layers")
    groups, group = section.integer("groups", 1, 1), section.integer("group_id", 0)
    shapes = [state.shape(i) for i in sources]
    if len({shape[1:] for shape in shapes}) > 1:
        section.fail(f"its maps differ in size: {', '.join(_shown(shape) for shape in shapes)}")
    if group >= groups or any(shape[0] % groups for shape in shapes):
        section.fail(f"group_id={group} of groups={groups} is not there in {', '.join(_shown(s) for s in shapes)}")
    shape = (sum(shape[0] // groups for shape in shapes), *shapes[0][1:])
    if groups == 1:
        return _Layer("concat", sources, {}, shape)
    return _Layer("slice", sources, {"groups": groups, "group": group}, shape)


def _shortcut(state: _State, section: Section) -> _Layer:
    sources = [state.above(section), *state.earlier(section, "from")]
    shapes = [state.shape(i) for i in sources]
    if len({shape[1:] for shape in shapes}) > 1:
        section.fail(f"its maps differ in size: {', '.join(_shown(shape) for shape in shapes)}")
    return _Layer("shortcut", sources, _unless_linear(section), shapes[0])


def _product(state: _State, section: Section) -> _Layer:
    """Read scale_channels (the layer above holds one weight a channel) or sam (one a number)."""
    sources = [state.above(section), *state.earlier(section, "from")]
    weights, scaled = state.shape(sources[0]), state.shape(sources[1])
    fits = weights == scaled if section.name == "sam" else weights == (scaled[0], 1, 1)
    if len(sources) > 2 or not fits:
        section.fail(f"a map of {_shown(weights)} cannot weigh one of {_shown(scaled)}")
    return _Layer("multiply", sources, _unless_linear(section), scaled)


def _unless_linear(section: Section) -> Row:
    act = _activation(section, "linear")
    return {} if act == "linear" else {"act": act}


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape))


_READERS: dict[str, Callable[[_State, Section], _Layer]] = {
    "convolutional": _convolutional, "connected": _connected, "local": _local, "maxpool": _maxpool, "avgpool": _avgpool,
    "upsample": _upsample, "reorg": _reorg, "dropout": _dropout, "route": _route, "shortcut": _shortcut,
    "scale_channels": _product, "sam": _product,
}  # fmt: skip
_LEARNED = ("convolutional", "connected", "local")


def _check_section(section: Section) -> None:
    """Raise UserError for a section that is not known, or an option that would change what it computes."""
    known = [*_READERS, *_DECODERS]
    if section.name not in known:
        section.fail(f"this section is not known{nearest(section.name, known)}: it can be {', '.join(known)}")
    for key, only in (_FIXED[""] | _FIXED.get(section.name, {})).items():
        value = section.options.get(key, only)
        if value not in (only, f"{only}.0", f"{only}."):
            section.fail(f"{key}={value} is not supported")


def _input_size(net: Section) -> Size:
    """Return (H, W) of the input."""
    if net.integer("channels", 3) != 3:
        net.fail(f"channels={net.options['channels']}: only pictures with 3 channels are read")
    size = net.integer("height", 0), net.integer("width", 0)
    if min(size) < 32 or any(side % 32 for side in size):
        net.fail(f"width={size[1]}, height={size[0]}: both must be given and be multiples of 32")
    return size


def read_network(sections: Sequence[Section]) -> Network:
    """Turn the sections of a .cfg into a network.

    Raises:
        UserError: a section, option or layer number that means nothing here; file, line and section are named.
    """
    net, *rest = [Section(s.file, s.line, _ALIASES.get(s.name, s.name), s.options) for s in sections]
    state = _State(_input_size(net))
    layers: list[tuple[str, _Layer]] = []
    heads: list[tuple[Head, str]] = []
    learned = []
    for index, section in enumerate(rest):
        _check_section(section)
        state.following = rest[index + 1] if index + 1 < len(rest) else None
        if section.name in _DECODERS:
            if index == 0 or layers[-1][1].block not in ("conv_head", "cell_head") or not state.names[-1]:
                section.fail("it must follow the convolution (or connected layer) whose numbers it decodes")
            heads.append((read_head(section, state.shapes[-1], state.size), state.names[-1]))
            state.shapes.append(state.shapes[-1])
            state.names.append("")
            continue
        layer = _READERS[section.name](state, section)
        if min(layer.shape) < 1:
            section.fail(f"nothing is left of its map: {_shown(layer.shape)}")
        name = f"{section.name}{index}"
        layers.append((name, layer))
        state.shapes.append(layer.shape)
        state.names.append(name)
        if section.name in _LEARNED:
            learned.append(name)
    if not heads:
        net.fail("the file has no [yolo], [region] or [detection]: it is no detector")
    return _network(net, state, layers, heads, learned)


def _network(
    net: Section, state: _State, layers: list[tuple[str, _Layer]], heads: list[tuple[Head, str]], learned: list[str]
) -> Network:
    """Put the rows in yolite's order: the heads last, the finest level first."""
    heads = sorted(heads, key=lambda pair: pair[0].stride)
    by_name, names = dict(layers), [name for _, name in heads]
    body = [name for name, _ in layers if name not in names]
    first_up = next((n for n, name in enumerate(body) if by_name[name].block == "upsample"), len(body))
    rows: dict[str, Row] = {}
    before = "image"
    for name in [*body, *names]:
        layer = by_name[name]
        sources = ["image" if i < 0 else state.names[i] for i in layer.sources]
        read = (
            {} if sources == [before] and before != "image" else {"from": sources if len(sources) > 1 else sources[0]}
        )
        rows[name] = {"block": layer.block, **layer.arguments, **read, "name": name}
        before = name
    return Network(
        state.size, bool(net.integer("letter_box", 0)), [rows[n] for n in body[:first_up]],
        [rows[n] for n in body[first_up:]], [rows[n] for n in names], Head.code([head for head, _ in heads], net),
        heads[0][0].classes, learned, len(state.shapes),
    )  # fmt: skip
