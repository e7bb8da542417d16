"""A network from plain layer records: what a config, a checkpoint and (later) a Darknet file all boil down to."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from yolite.models import blocks, plain

BLOCKS: dict[str, type[nn.Module]] = {**blocks.BLOCKS, **plain.PLAIN}
"""Every block by the name that configs and checkpoints use."""


@dataclass(frozen=True)
class LayerRecord:
    """One layer.

    Attributes:
        block: A name in `BLOCKS`.
        inputs: Indices of the layers it reads; −1 is the picture itself.
        arguments: Keyword arguments of the block, plain data.
        name: A name to speak of it; may be empty.
    """

    block: str
    inputs: tuple[int, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def to_plain(self) -> dict[str, Any]:
        """Return the record as plain data for a checkpoint."""
        return {
            "block": self.block,
            "inputs": list(self.inputs),
            "arguments": dict(self.arguments),
            "name": self.name,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> LayerRecord:
        """Read what `to_plain` wrote."""
        return cls(plain["block"], tuple(plain["inputs"]), dict(plain["arguments"]), plain["name"])


def _make(index: int, record: LayerRecord, channels: list[int]) -> nn.Module:
    """Build the module of one record, or raise ValueError with its number and what is wrong."""
    if record.block not in BLOCKS:
        raise ValueError(f"layer {index}: unknown block {record.block!r}; there are {', '.join(BLOCKS)}")
    block = BLOCKS[record.block]
    accepted = [name for name in inspect.signature(block).parameters if name != "in_channels"]
    unknown = sorted(set(record.arguments) - set(accepted))
    if unknown:
        raise ValueError(f"layer {index} ({record.block}): unknown argument {unknown[0]!r}; it takes {accepted}")
    try:
        return block([channels[i] for i in record.inputs], **record.arguments)
    except (ValueError, TypeError, KeyError, ArithmeticError, RuntimeError) as error:
        # torch adds to its own sentence where in its C++ code it was written
        reason = str(error).partition("\n")[0][:200]
        raise ValueError(
            f"layer {index} ({record.block}) cannot be made of {dict(record.arguments)} ({reason})"
        ) from None


class Graph(nn.Module):
    """Run the records in order; each reads any earlier outputs.

    Args:
        records: The layers.
        outputs: Indices of the layers whose outputs are returned, in this order.
        in_channels: Channels of the picture.

    Raises:
        ValueError: an unknown block or argument, or an input that does not stand before its layer.
    """

    def __init__(self, records: Sequence[LayerRecord], outputs: Sequence[int], in_channels: int = 3) -> None:
        super().__init__()
        self.records = tuple(records)
        self.outputs = tuple(outputs)
        self.layers = nn.ModuleList()
        channels: list[int] = []
        for index, record in enumerate(self.records):
            if not record.inputs or not all(-1 <= i < index for i in record.inputs):
                raise ValueError(f"layer {index} ({record.block}): it reads {record.inputs}, not an earlier layer")
            # channels[-1] must mean the picture, so the list is searched with the picture at its end
            module = _make(index, record, [*channels, in_channels])
            channels.append(int(module.out_channels))  # type: ignore[arg-type]
            self.layers.append(module)
        self.channels = tuple(channels)
        # The last layer that reads each output: afterwards it can be freed.
        self._last_use = {i: n for n, r in enumerate(self.records) for i in r.inputs}

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, 3, H, W] → the maps of ``outputs``."""
        kept: dict[int, Tensor] = {-1: x}
        for index, (record, layer) in enumerate(zip(self.records, self.layers, strict=True)):
            kept[index] = layer(*[kept[i] for i in record.inputs])
            for i in record.inputs:
                if self._last_use[i] == index and i not in self.outputs:
                    kept.pop(i, None)
        return [kept[i] for i in self.outputs]
