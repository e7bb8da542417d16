"""From the sections of a .cfg to the rows of a model config: one row a layer, named after its section and number.

Numbers count as Darknet counts them: the first section after ``[net]`` is layer 0. The sections that decode
(``yolo``, ``region``, ``detection``) compute nothing here: they say how the layer before them, the head, is to be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yolite.darknet.cfg import Section
from yolite.darknet.heads import Head, read_head
from yolite.darknet.layers import DECODERS, HEADS, LEARNED, READERS, Layer, Row, State, shown
from yolite.errors import nearest
from yolite.structures import Size

_ALIASES = {"conv": "convolutional", "max": "maxpool", "avg": "avgpool", "conn": "connected"}
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


def _check_section(section: Section) -> None:
    """Raise UserError for a section that is not known, or an option that would change what it computes."""
    known = [*READERS, *DECODERS]
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
    state = State(_input_size(net))
    layers: dict[str, Layer] = {}
    heads: list[tuple[Head, str]] = []
    for index, section in enumerate(rest):
        _check_section(section)
        state.following = rest[index + 1] if index + 1 < len(rest) else None
        name, above = f"{section.name}{index}", next(reversed(layers), "")
        if section.name in DECODERS:
            if not above.endswith(str(index - 1)) or layers[above].block not in HEADS:
                section.fail("it must follow the convolution (or connected layer) whose numbers it decodes")
            heads.append((read_head(section, state.shapes[-1], state.size), above))
            state.shapes.append(state.shapes[-1])
            state.names.append("")
            continue
        layers[name] = layer = READERS[section.name](state, section)
        if min(layer.shape) < 1:
            section.fail(f"nothing is left of its map: {shown(layer.shape)}")
        state.shapes.append(layer.shape)
        state.names.append("" if layer.block in HEADS else name)
    if not heads:
        net.fail("the file has no [yolo], [region] or [detection]: it is no detector")
    return _network(net, state, layers, heads)


def _network(net: Section, state: State, layers: Mapping[str, Layer], heads: list[tuple[Head, str]]) -> Network:
    """Put the rows in yolite's order: the heads last, the finest level first."""
    heads = sorted(heads, key=lambda pair: pair[0].stride)
    last = [name for _, name in heads]
    body = [name for name in layers if name not in last]
    first_up = next((n for n, name in enumerate(body) if layers[name].block == "upsample"), len(body))
    rows: dict[str, Row] = {}
    before = "image"
    for name in [*body, *last]:
        layer = layers[name]
        sources = ["image" if i < 0 else state.names[i] for i in layer.sources]
        row = {"block": layer.block, **layer.arguments, "from": sources if len(sources) > 1 else sources[0]}
        if sources == [before] and before != "image":
            del row["from"]  # the row above, as a config has it
        rows[name] = {**row, "name": name}
        before = name
    return Network(
        state.size, bool(net.integer("letter_box", 0)), [rows[n] for n in body[:first_up]],
        [rows[n] for n in body[first_up:]], [rows[n] for n in last], Head.code([head for head, _ in heads], net),
        heads[0][0].classes, [name for name in layers if name.startswith(LEARNED)], len(state.shapes),
    )  # fmt: skip
