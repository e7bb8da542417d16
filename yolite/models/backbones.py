"""Backbones of torchvision, cut where their maps get coarser: rows of stage 1, 2 and 3 give strides 8, 16 and 32.

The code is torchvision's own (BSD); here is only where each network is cut and how its pictures are normalised.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Net:
    """One network of torchvision, which is imported when it is asked for: that takes two seconds.

    Attributes:
        name: As torchvision calls it.
        parts: Names of the layers in each of the three stages, as torchvision calls them.
        inside: The part of the network where those layers are; empty: it itself.
        options: What torchvision is asked for besides.
        mean, std: What its weights want the pictures to be normalised with, per channel, 0 to 1.
    """

    name: str
    parts: tuple[tuple[str, ...], ...]
    inside: str = ""
    options: Mapping[str, bool] = field(default_factory=dict)
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)

    def make(self) -> nn.Module:
        """Build the whole of it, its classifier included."""
        from torchvision import models

        whole: nn.Module = models.get_model(self.name, weights=None, **self.options)
        return whole

    @property
    def weights(self) -> Any:
        """Torchvision's list of weights for it."""
        from torchvision import models

        return models.get_model_weights(self.name)


def _slices(*cuts: int) -> tuple[tuple[str, ...], ...]:
    """Return the names of numbered layers between the cuts."""
    return tuple(tuple(map(str, range(a, b))) for a, b in pairwise((0, *cuts)))


_NETS = (
    Net("resnet18", (("conv1", "bn1", "relu", "maxpool", "layer1", "layer2"), ("layer3",), ("layer4",))),
    Net("mobilenet_v3_large", _slices(7, 13, 17), "features"),
    Net("mobilenet_v3_small", _slices(4, 9, 13), "features"),
    Net("vgg16", _slices(17, 24, 31), "features", {"init_weights": False}),
    Net(
        # Its side heads are for ImageNet's classes. Its weights come from elsewhere and want −1 to 1; torchvision's
        # own transform_input does the same to pictures normalised for the others.
        "googlenet",
        (
            ("conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", "inception3b"),
            ("maxpool3", "inception4a", "inception4b", "inception4c", "inception4d", "inception4e"),
            ("maxpool4", "inception5a", "inception5b"),
        ),
        options={"init_weights": False, "aux_logits": False},
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
)
NETS = {net.name: net for net in _NETS}


class Stage(nn.Module):
    """A third of a backbone: from the picture to stride 8, from 8 to 16, or from 16 to 32.

    Its weights are drawn like all others; those that torchvision trained are loaded by `load` when asked for.

    Args:
        in_channels: One entry: that of the picture, or of the stage before.
        net: A name in `NETS`.
        stage: 1, 2 or 3.

    Raises:
        ValueError: an unknown network or stage.
        RuntimeError: the stage does not fit what it reads.
    """

    def __init__(self, in_channels: Sequence[int], net: str, stage: int) -> None:
        super().__init__()
        if net not in NETS:
            raise ValueError(f"net {net!r} is unknown; there are {', '.join(NETS)}")
        if stage not in (1, 2, 3):
            raise ValueError(f"stage {stage!r} is none of 1, 2, 3")
        self.net = NETS[net]
        (cin,) = in_channels
        with torch.device("meta"):  # most of vgg16 is a classifier that nobody needs
            whole = self.net.make().get_submodule(self.net.inside)
            parts = OrderedDict((name, whole.get_submodule(name)) for name in self.net.parts[stage - 1])
            self.layers = nn.Sequential(parts).eval()
            self.out_channels = int(self.layers(torch.empty(1, cin, 32, 32)).shape[1])
        self.layers.train().to_empty(device=torch.get_default_device())
        for module in self.layers.modules():
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
                module.reset_parameters()
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, out, H / 8, W / 8] (stage 1) or [B, out, H / 2, W / 2]."""
        out: Tensor = self.layers(x)
        return out

    def load(self, weights: Mapping[str, Tensor]) -> int:
        """Take this stage's part of torchvision's weights of the whole network; return how many tensors that are.

        Raises:
            ValueError: a tensor is missing or of another shape.
        """
        prefix = f"{self.net.inside}." if self.net.inside else ""
        own = self.layers.state_dict()
        # old files do not count batches, and BN here does not ask for the count
        names = [name for name in own if not name.endswith("num_batches_tracked")]
        for name in names:
            found = weights.get(prefix + name)
            if found is None or found.shape != own[name].shape:
                what = "is missing" if found is None else f"is {tuple(found.shape)}, not {tuple(own[name].shape)}"
                raise ValueError(f"{prefix}{name} {what}")
        self.layers.load_state_dict({**own, **{name: weights[prefix + name] for name in names}})
        return len(names)

    def longest_path(self) -> list[nn.Module]:
        """Every convolution and pool in turn; of an inception its second branch, of a residual block the long way."""
        beside = {"branch1", "branch3", "branch4", "downsample"}
        return [
            module
            for name, module in self.layers.named_modules()
            if isinstance(module, (nn.Conv2d, nn.MaxPool2d)) and not beside.intersection(name.split("."))
        ]
