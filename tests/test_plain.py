"""The plain layers of YOLOv1 to v4, each against a loop or torch's own layer."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from yolite.models.conv import Conv, activation
from yolite.models.graph import BLOCKS
from yolite.models.plain import (
    AvgPool,
    CellHead,
    Connected,
    ConvHead,
    Dropout,
    Local,
    MaxPool,
    Multiply,
    Reorg,
    Shortcut,
    Slice,
)


def darknet_reorg(x: np.ndarray, stride: int) -> np.ndarray:
    """Darknet's own loop over flat memory (src/blas.c, reorg_cpu with forward = 0)."""
    c, h, w = x.shape
    flat, out, fewer = x.ravel(), np.zeros(x.size, x.dtype), c // stride**2
    for k in range(c):
        for j in range(h):
            for i in range(w):
                offset, c2 = divmod(k, fewer)
                row, column = j * stride + offset // stride, i * stride + offset % stride
                out[i + w * (j + h * k)] = flat[column + w * stride * (row + h * stride * c2)]
    return out.reshape(c * stride**2, h // stride, w // stride)


def test_reorg_has_darknets_order() -> None:
    x = np.arange(8 * 4 * 6, dtype=np.float32).reshape(8, 4, 6)
    layer = Reorg([8], 2)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        out = layer(torch.from_numpy(np.stack([x, x + 1000])).contiguous(memory_format=memory_format))
        assert out.shape == (2, layer.out_channels, 2, 3)
        np.testing.assert_array_equal(out[0].numpy(), darknet_reorg(x, 2))
        np.testing.assert_array_equal(out[1].numpy(), darknet_reorg(x + 1000, 2))
    with pytest.raises(ValueError, match="6 channels do not divide"):
        Reorg([6], 2)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (2, 1), (3, 2), (3, 1), (5, 1), (3, 3), (4, 2)])
@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_maxpool_has_darknets_padding(kernel: int, stride: int, size: tuple[int, int]) -> None:
    """A loop over windows that begin (kernel - 1) // 2 before the map; what lies outside never wins."""
    x = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0)) - 5  # a padding of 0 would win
    out = MaxPool([2], kernel, stride)(x)
    before = (kernel - 1) // 2
    rows, columns = ((side - 1) // stride + 1 for side in size)
    assert out.shape == (1, 2, rows, columns)
    for r in range(rows):
        for c in range(columns):
            top, left = r * stride - before, c * stride - before
            window = x[0, :, max(top, 0) : top + kernel, max(left, 0) : left + kernel]
            assert torch.equal(out[0, :, r, c], window.amax((1, 2)))


def test_shortcut_adds_what_both_have() -> None:
    few, many = torch.randn(2, 3, 4, 5), torch.randn(2, 5, 4, 5)
    more = Shortcut([5, 3])(many, few)
    assert torch.equal(more[:, :3], many[:, :3] + few)
    assert torch.equal(more[:, 3:], many[:, 3:])
    assert torch.equal(Shortcut([3, 5], act="relu")(few, many), (few + many[:, :3]).relu())
    assert torch.equal(Shortcut([3, 5, 3])(few, many, few), few + many[:, :3] + few)


def test_slices_and_products() -> None:
    a, b = torch.randn(1, 4, 2, 2), torch.randn(1, 6, 2, 2)
    assert torch.equal(Slice([4, 6], 2, 1)(a, b), torch.cat((a[:, 2:], b[:, 3:]), 1))
    assert torch.equal(Slice([4], 4, 0)(a), a[:, :1])
    with pytest.raises(ValueError, match="no group 2 of 2"):
        Slice([4], 2, 2)
    weights = AvgPool([4])(a)
    torch.testing.assert_close(weights[0, 1, 0, 0], a[0, 1].mean())
    assert torch.equal(Multiply([4, 4])(weights, a), a * weights)
    assert torch.equal(Multiply([4, 4], act="relu")(a, a), a * a)
    with pytest.raises(ValueError, match="no product"):
        Multiply([4, 6])


def test_connected_is_a_linear_layer_over_the_flattened_map() -> None:
    layer, x = Connected([3], 7, (4, 5), act="relu"), torch.randn(2, 3, 4, 5)
    plain = F.linear(x.flatten(1), layer.conv.weight.flatten(1), layer.conv.bias).relu()
    torch.testing.assert_close(layer(x).flatten(1), plain)
    with pytest.raises(ValueError, match=r"6x5 cells, but it is connected to 4x5: the input size .* is fixed"):
        layer(torch.randn(2, 3, 6, 5))
    assert isinstance(Connected([3], 7, (4, 5), norm="bn").bn, nn.BatchNorm2d)


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 0)])
def test_local_with_one_kernel_everywhere_is_a_convolution(stride: int, padding: int) -> None:
    layer, x = Local([3], 4, (5, 6), 3, stride, padding, act="identity"), torch.randn(2, 3, 5, 6)
    kernel = torch.randn(4, 3, 3, 3)
    with torch.no_grad():
        layer.weight.copy_(kernel.flatten(1).expand_as(layer.weight))
        layer.bias.normal_()
    torch.testing.assert_close(layer(x), F.conv2d(x, kernel, stride=stride, padding=padding) + layer.bias)
    with torch.no_grad():  # the place (row 1, column 0) alone
        layer.weight[layer.grid[1]] = 0
    assert torch.equal(layer(x)[0, :, 1, 0], layer.bias[:, 1, 0])


def test_the_vector_of_yolov1_becomes_a_map() -> None:
    """2 boxes, 3 classes, a grid of 2 x 2: number n of the vector is n itself, by Darknet's order of them."""
    head = CellHead([1], anchors=2, classes=3, size=(2, 2))
    with torch.no_grad():
        head.vector.conv.weight.zero_()
        head.vector.conv.bias.copy_(torch.arange(4 * 13.0))
    out = head(torch.zeros(1, 1, 2, 2))
    assert out.shape == (1, 13, 2, 2)
    cell = 2  # row 1, column 0
    classes, confidence = [cell * 3 + c for c in range(3)], [12 + cell * 2 + b for b in range(2)]
    boxes = [[20 + (cell * 2 + b) * 4 + f for f in range(4)] for b in range(2)]
    assert out[0, :, 1, 0].tolist() == [*boxes[0], confidence[0], *boxes[1], confidence[1], *classes]


def test_a_bare_head_starts_calm() -> None:
    head = ConvHead([8], 3, 2, prior=0.25)
    assert head.out_channels == 21
    bias = head.conv.bias.view(3, 7)
    torch.testing.assert_close(bias[:, 4].sigmoid(), torch.full((3,), 0.25))
    assert not bias[:, :4].any()
    assert not bias[:, 5:].any()


def test_dropout_works_in_training_alone() -> None:
    layer, x = Dropout([1], 0.75), torch.ones(1, 1, 100, 100)
    assert torch.equal(layer.eval()(x), x)
    kept = layer.train()(x)
    assert 0.2 < (kept > 0).float().mean() < 0.3
    assert kept.max() == 4


def test_every_plain_layer_has_a_name() -> None:
    for name in ("maxpool", "avgpool", "reorg", "slice", "shortcut", "multiply", "dropout", "connected", "local",
                 "conv_head", "cell_head", "conv", "upsample"):  # fmt: skip
        assert name in BLOCKS


def test_a_convolution_with_padding_of_its_own() -> None:
    layer, x = Conv([3], 4, 3, padding=0, norm="none", act="linear"), torch.randn(1, 3, 5, 6)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.conv.weight, layer.conv.bias))
    assert Conv([3], 4, 5, dilation=2).conv.padding == (4, 4)


def scalar(name: str, x: float) -> float:
    """Darknet's activations (src/activations.h), number by number."""
    if name == "elu":
        return x if x >= 0 else math.exp(x) - 1
    if name == "selu":
        return 1.0507 * (x if x >= 0 else 1.6732 * (math.exp(x) - 1))
    if name == "gelu":
        return 0.5 * x * (1 + math.tanh(0.797885 * x + 0.035677 * x**3))
    if name == "relie":
        return x if x > 0 else 0.01 * x
    if name == "hardtan":
        return max(-1.0, min(1.0, x))
    if name == "ramp":
        return x * (x > 0) + 0.1 * x
    if name == "loggy":
        return 2 / (1 + math.exp(-x)) - 1
    if name == "hard_mish":
        return x if x > 0 else (x * x / 2 + x if x > -2 else 0.0)
    if name == "lhtan":
        return 0.001 * x if x < 0 else (0.001 * (x - 1) + 1 if x > 1 else x)
    if name == "plse":
        return 0.01 * (x + 4) if x < -4 else (0.01 * (x - 4) + 1 if x > 4 else 0.125 * x + 0.5)
    n = math.floor(x)  # stair
    return float(math.floor(x / 2)) if n % 2 == 0 else x - n + math.floor(x / 2)


@pytest.mark.parametrize(
    "name", ["elu", "selu", "gelu", "relie", "hardtan", "ramp", "loggy", "hard_mish", "lhtan", "plse", "stair"]
)
def test_darknets_odd_activations(name: str) -> None:
    x = torch.linspace(-6, 6, 49, dtype=torch.float64) + 0.01
    wanted = torch.tensor([scalar(name, value) for value in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(activation(name)(x), wanted, rtol=1e-3, atol=1e-4)
