"""The choices of a network, each against a plain formula: activations, norms, convolutions, attention, weights."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from yolite.build import build_detector, placeholder_anchors
from yolite.config import ModelConfig
from yolite.errors import UserError
from yolite.models.attention import CBAM, SqueezeExcitation
from yolite.models.blocks import Conv, Transposed
from yolite.models.conv import ACTIVATIONS, NORMS, POOLS
from yolite.models.detector import INITS, Detector, fused, initialise
from yolite.models.graph import BLOCKS, Graph, LayerRecord
from yolite.models.summary import summarise
from yolite.settings import load_config
from yolite.structures import HeadSpec

CURVES = {
    "silu": lambda x: x * x.sigmoid(),
    "relu": lambda x: x.clamp(min=0),
    "leaky": lambda x: torch.where(x > 0, x, 0.1 * x),
    "prelu": lambda x: torch.where(x > 0, x, 0.25 * x),
    "mish": lambda x: x * (1 + x.exp()).log().tanh(),
    "tanh": torch.tanh,
    "relu6": lambda x: x.clamp(0, 6),
    "logistic": lambda x: 1 / (1 + (-x).exp()),
    "hard_swish": lambda x: x * (x + 3).clamp(0, 6) / 6,
    "identity": lambda x: x,
    "linear": lambda x: x,
    # Darknet's others, after src/activations.h
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "selu": lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (x.exp() - 1)),
    "gelu": lambda x: 0.5 * x * (1 + (0.7978845608 * (x + 0.044715 * x**3)).tanh()),
    "relie": lambda x: torch.where(x > 0, x, 0.01 * x),
    "hardtan": lambda x: x.clamp(-1, 1),
    "ramp": lambda x: torch.where(x > 0, x, 0 * x) + 0.1 * x,
    "loggy": lambda x: 2 / (1 + (-x).exp()) - 1,
    "hard_mish": lambda x: torch.where(x > 0, x, torch.where(x > -2, x * x / 2 + x, 0 * x)),
    "lhtan": lambda x: torch.where(x < 0, 0.001 * x, torch.where(x > 1, 0.001 * (x - 1) + 1, x)),
    "plse": lambda x: torch.where(x < -4, 0.01 * (x + 4), torch.where(x > 4, 0.01 * (x - 4) + 1, x / 8 + 0.5)),
    "stair": lambda x: torch.where(x.floor() % 2 == 0, (x / 2).floor(), x - x.floor() + (x / 2).floor()),
}


def detector(*rows: tuple[str, dict[str, object]], stride: int = 8) -> Detector:
    """A chain of rows and a head with one anchor and one class."""
    records = [LayerRecord(block, (i - 1,), arguments) for i, (block, arguments) in enumerate(rows)]
    records.append(LayerRecord("grid_head", (len(rows) - 1,), {"anchors": 1, "classes": 1, "hidden": 8}))
    return Detector(records, [HeadSpec(stride, ((8.0, 8.0),), 1)], [len(rows)])


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_is_its_formula(name: str) -> None:
    x = torch.linspace(-8, 8, 65).view(1, 1, 1, 65)
    conv = Conv([1], 1, act=name, norm="none")
    nn.init.ones_(conv.conv.weight)
    torch.testing.assert_close(conv(x), CURVES[name](x), rtol=1e-5, atol=1e-6)


def test_the_norms_are_their_formulas() -> None:
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    for norm in NORMS:
        conv = Conv([3], 48, 3, act="identity", norm=norm, eps=0.5)
        plain = F.conv2d(x, conv.conv.weight, conv.conv.bias, padding=1)
        if norm == "none":
            expected = plain
        else:  # BN: over batch, H, W; group norm: over the 16 channels of a group, H, W, each picture for itself
            parts = plain.view(2, 3, 16, 5, 7) if norm == "group" else plain.view(2, 48, 1, 5, 7)
            over = (2, 3, 4) if norm == "group" else (0, 2, 3, 4)
            spread = parts.var(over, keepdim=True, correction=0) + 0.5
            expected = ((parts - parts.mean(over, keepdim=True)) / spread.sqrt()).view(2, 48, 5, 7)
        torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=1e-5)
        assert (conv.conv.bias is not None) == (norm == "none")


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (16, 1), (24, 1), (40, 2), (48, 3), (17, 1), (256, 16)])
def test_groups_of_group_norm(channels: int, groups: int) -> None:
    assert Conv([3], channels, norm="group").bn.num_groups == groups


def test_dilation_spreads_the_taps() -> None:
    """A dilated 3×3 kernel is the 5×5 kernel with zeros between its taps."""
    x = torch.randn(1, 2, 9, 12)
    conv = Conv([2], 4, 3, norm="none", act="identity", dilation=2)
    wide = torch.zeros(4, 2, 5, 5)
    wide[:, :, ::2, ::2] = conv.conv.weight.detach()
    torch.testing.assert_close(conv(x), F.conv2d(x, wide, padding=2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (4, 2), (3, 1), (8, 4)])
def test_transposed_is_the_adjoint_of_a_strided_convolution(kernel: int, stride: int) -> None:
    """⟨Tx, y⟩ = ⟨x, Cy⟩ where C is the convolution with the same weights, stride and padding."""
    up = Transposed([3], 5, kernel, stride, act="identity", norm="none").double()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    y = torch.randn(2, 5, 4 * stride, 6 * stride, dtype=torch.float64)
    down = F.conv2d(y, up.conv.weight, stride=stride, padding=(kernel - stride) // 2)
    torch.testing.assert_close((up(x) * y).sum(), (x * down).sum())


@pytest.mark.parametrize(
    ("block", "arguments", "words"),
    [
        ("conv", {"out": 8, "act": "swosh"}, "act 'swosh' is unknown; there are silu"),
        ("conv", {"out": 8, "norm": "layer"}, "norm 'layer' is unknown; there are bn"),
        ("conv", {"out": 8, "down": "median"}, "down 'median' is unknown; there are stride"),
        ("cbam", {"kernel": 6}, "kernel 6 is even"),
        ("transposed", {"out": 8, "kernel": 3}, "difference must be even"),
        ("transposed", {"out": 8, "kernel": 2, "stride": 4}, "at least 0"),
    ],
)
def test_unknown_choices_are_refused(block: str, arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Graph([LayerRecord(block, (-1,), arguments)], [0])


def mixed(act: str = "leaky") -> Detector:
    """Every kind of norm, eps, bias, groups and dilation, plain and transposed, in one network."""
    return detector(
        ("conv", {"out": 8, "kernel": 3, "stride": 2, "norm": "none", "act": act}),
        ("conv", {"out": 16, "kernel": 3, "stride": 2, "eps": 0.1, "act": act, "down": "max"}),
        ("conv", {"out": 16, "kernel": 3, "groups": 0, "dilation": 2, "act": act}),
        ("se", {}),
        ("cbam", {}),
        ("conv", {"out": 32, "kernel": 3, "stride": 2, "norm": "group", "act": act}),
        ("csp", {"out": 32, "norm": "group", "act": act}),
        ("transposed", {"out": 16, "eps": 0.01, "act": act}),
        ("transposed", {"out": 8, "kernel": 2, "norm": "none", "act": act}),
        ("sppf", {"out": 8, "norm": "none", "act": act}),
        stride=2,
    )


def test_fusing_handles_every_norm_eps_and_bias() -> None:
    torch.manual_seed(0)
    model = mixed()
    initialise(model, 0)
    for module in model.modules():  # BN as if it had seen data
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.02, 2)
    model.double().eval()
    x = torch.rand(2, 3, 32, 48, dtype=torch.float64)
    lean = fused(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in lean.modules())
    assert sum(isinstance(m, nn.GroupNorm) for m in lean.modules()) == 5
    torch.testing.assert_close(lean(x)[0], model(x)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("act", ["prelu", "mish"])
def test_every_parameter_of_every_choice_gets_a_gradient(act: str) -> None:
    model = mixed(act)
    initialise(model, 0)
    (raw,) = model(torch.rand(2, 3, 32, 48))
    assert raw.shape == (2, 6, 16, 24)
    raw.square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_initialise_knows_raw_numbers_from_hidden_convolutions_with_a_bias() -> None:
    model = detector(
        ("conv", {"out": 256, "kernel": 3, "stride": 8, "norm": "none"}),
        ("conv", {"out": 256, "norm": "none", "act": "linear"}),
    )
    initialise(model, 0)
    hidden, raw = (model.graph.layers[i].conv for i in (0, 1))
    assert hidden.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.05)
    assert raw.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not hidden.bias.any()
    assert not raw.bias.any()


@pytest.mark.parametrize(
    "row",
    [
        ("conv", {"out": 8, "kernel": 3, "dilation": 3}),
        ("conv", {"out": 8, "kernel": 3, "stride": 2, "dilation": 2}),
        ("conv", {"out": 8, "kernel": 3, "stride": 2, "down": "avg"}),
        ("transposed", {"out": 8}),
        ("transposed", {"out": 8, "kernel": 2}),
        ("transposed", {"out": 8, "kernel": 8}),
        ("sppf", {"out": 8}),
    ],
    ids=str,
)
def test_the_receptive_field_is_where_the_gradient_reaches(row: tuple[str, dict[str, object]]) -> None:
    model = detector(("conv", {"out": 8, "kernel": 3, "stride": 4, "act": "linear"}), row)
    part = Graph(model.graph.records[:2], [1]).double().eval()
    for module in part.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.constant_(module.weight, 1.0)
    x = torch.rand(1, 3, 128, 128, dtype=torch.float64, requires_grad=True)
    (out,) = part(x)
    middle = out.shape[-1] // 2
    reached = []
    for side in (0, 1):  # a transposed convolution's even and odd cells may see differently much
        (gradient,) = torch.autograd.grad(out[0, :, middle + side, middle + side].sum(), x, retain_graph=True)
        lines = gradient[0].abs().sum((0, 1)).nonzero()
        reached.append(int(lines.max() - lines.min()) + 1)
    # max pools pass the gradient to one cell alone: they are judged by changing the input instead
    if row[0] == "sppf":
        reached = [_changed(part, middle)]
    assert summarise(model, (128, 128))[1].receptive == max(reached)


def _changed(part: Graph, middle: int) -> int:
    """How wide the input columns lie that change the middle cell by a spike in them."""
    quiet = torch.zeros(1, 3, 128, 128, dtype=torch.float64)
    before = part(quiet)[0][0, :, middle, middle]
    moved = []
    for column in range(128):
        spike = quiet.clone()
        spike[..., column] = 1e3
        if not torch.equal(part(spike)[0][0, :, middle, middle], before):
            moved.append(column)
    return moved[-1] - moved[0] + 1


def test_every_block_says_how_far_it_sees() -> None:
    assert all(hasattr(block, "longest_path") for block in BLOCKS.values())


def test_the_names_of_the_weights_are_part_of_the_checkpoint() -> None:
    assert list(Conv([3], 8).state_dict()) == ["conv.weight", *(f"bn.{n}" for n in nn.BatchNorm2d(8).state_dict())]
    assert list(Conv([3], 8, norm="group").state_dict()) == ["conv.weight", "bn.weight", "bn.bias"]
    assert list(Conv([3], 8, norm="none", act="prelu").state_dict()) == ["conv.weight", "conv.bias", "act.weight"]


@pytest.mark.parametrize(("down", "pool"), [("max", F.max_pool2d), ("avg", F.avg_pool2d)])
def test_a_pool_may_halve_the_map_instead_of_the_stride(down: str, pool) -> None:
    x = torch.randn(2, 3, 8, 12)
    conv = Conv([3], 8, 3, stride=2, down=down, norm="none")
    full = F.silu(F.conv2d(x, conv.conv.weight, conv.conv.bias, padding=1))
    assert torch.equal(conv(x), pool(full, 2))
    assert conv.state_dict().keys() == Conv([3], 8, 3, stride=2, norm="none").state_dict().keys()
    assert Conv([3], 8, 3, down=down).pool is None, "nothing to make smaller"


def test_depthwise_and_grouped_convolutions_keep_their_channels_apart() -> None:
    x = torch.randn(1, 6, 5, 7)
    for groups in (0, 3):
        conv = Conv([6], 6, 3, groups=groups, norm="none", act="identity")
        pairs = zip(x.chunk(groups or 6, 1), conv.conv.weight.chunk(groups or 6), strict=True)
        parts = [F.conv2d(part, weight, padding=1) for part, weight in pairs]
        torch.testing.assert_close(conv(x), torch.cat(parts, 1), rtol=1e-5, atol=1e-5)


def test_squeeze_and_excitation_by_hand() -> None:
    """Means 1 and 3; W₁ adds them up into the first of 8 hidden numbers (4); W₂ gives 0.25 · 4 and −0.5 · 4."""
    block = SqueezeExcitation([2])
    for conv in (block.reduce.conv, block.expand.conv):
        nn.init.zeros_(conv.weight)
    with torch.no_grad():
        block.reduce.conv.weight[0] = 1
        block.expand.conv.weight[:, 0] = torch.tensor([[[0.25]], [[-0.5]]])
    x = torch.tensor([[[[0.0, 2.0]], [[2.0, 4.0]]]])
    gates = torch.tensor([1.0, -2.0]).sigmoid().view(1, 2, 1, 1)
    torch.testing.assert_close(block(x), x * gates)


def test_cbam_is_its_formula() -> None:
    torch.manual_seed(0)
    block = CBAM([32], ratio=2)
    x = torch.randn(2, 32, 5, 7)
    first, second = block.reduce.conv.weight[:, :, 0, 0], block.expand.conv.weight[:, :, 0, 0]
    assert first.shape == (16, 32)
    mlp = [(v @ first.T).clamp(min=0) @ second.T for v in (x.mean((2, 3)), x.flatten(2).max(2).values)]
    channels = x * torch.sigmoid(mlp[0] + mlp[1])[:, :, None, None]
    maps = torch.stack((channels.mean(1), channels.max(1).values), 1)
    expected = channels * torch.sigmoid(F.conv2d(maps, block.place.conv.weight, padding=3))
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("init", "fan"), [("he_fan_out", 256 * 9), ("he_fan_in", 64 * 9), ("xavier", 320 * 9)])
def test_initialisation_has_the_variance_of_its_paper(init: str, fan: int) -> None:
    model = nn.Sequential(Conv([64], 256, 3), Conv([512], 512, 3, groups=0), Transposed([64], 256))
    initialise(model, 0, init)
    depthwise = {"he_fan_out": 9, "he_fan_in": 9, "xavier": 18}[init]
    transposed = {"he_fan_out": 256 * 16, "he_fan_in": 64 * 4, "xavier": 256 * 16 + 64 * 4}[init]
    for module, n in zip(model, (fan, depthwise, transposed), strict=True):
        assert module.conv.weight.std().item() == pytest.approx((2 / n) ** 0.5, rel=0.05)


def test_he_fan_in_keeps_the_size_of_what_flows_through_relu() -> None:
    """What the formula is for (arXiv 1502.01852, section 2.2): after 12 layers numbers are as large as before."""
    torch.manual_seed(0)
    model = nn.Sequential(*(Conv([64], 64, 3, act="relu", norm="none") for _ in range(12)))
    initialise(model, 0, "he_fan_in")
    x = torch.randn(4, 64, 24, 24)
    inside = model(x)[..., 11:13, 11:13]  # far from the padding
    assert 0.4 < inside.square().mean() / x.square().mean() < 2.5


def choices(field: str) -> set[str]:
    """What the config takes for a setting of the model."""
    kinds = get_args(ModelConfig.model_fields[field].annotation)
    return {n for k in kinds for n in (get_args(k) or [k]) if isinstance(n, str)}


def test_the_config_names_every_choice_that_there_is() -> None:
    assert choices("act") < set(ACTIVATIONS) - {"identity", "linear"}, "those of Darknet's files stay in their rows"
    assert choices("norm") == set(NORMS)
    assert choices("down") == {"stride", *POOLS}
    assert choices("init") == set(INITS)


def test_choices_for_the_whole_model() -> None:
    config = load_config(
        "yolite-n", words=["model.act=leaky", "model.norm=group", "model.down=max", "model.init=xavier"]
    )
    rows = [*config.model.backbone]
    rows[1] = {**rows[1], "act": "tanh", "norm": "bn", "down": "stride"}
    config = config.model_copy(update={"model": config.model.model_copy(update={"backbone": rows})})
    model = build_detector(config, 3, placeholder_anchors(config.model))
    said, unsaid = model.graph.layers[1], model.graph.layers[2]
    assert [type(m) for m in (said.act, said.bn, said.pool)] == [nn.Tanh, nn.BatchNorm2d, type(None)]
    assert [type(m) for m in (unsaid.act, unsaid.bn, unsaid.pool)] == [nn.LeakyReLU, nn.GroupNorm, nn.MaxPool2d]
    kinds = [type(m) for m in model.modules()]
    assert kinds.count(nn.BatchNorm2d) == kinds.count(nn.Tanh) == 1, "all other layers are chosen, inner ones too"
    assert nn.SiLU not in kinds
    (weight,) = model.graph.layers[3].blocks[0].first.conv.parameters()
    assert weight.std().item() == pytest.approx((2 / (2 * 32 * 9)) ** 0.5, rel=0.05)
    assert model.graph.records[1].arguments["act"] == "tanh"
    assert "act" not in model.graph.records[9].arguments, "a block without activation takes none"


@pytest.mark.parametrize("down", ["max", "stride"])
def test_a_choice_that_no_row_takes_is_refused(down: str) -> None:
    """YOLOv2 pools between its rows; and what rows say themselves, the model's choice does not change."""
    config = load_config("yolov2" if down == "max" else "yolite-n", words=[f"model.down={down}"])
    said = {part: [{**row, "down": "avg"} if row.get("stride") else row for row in getattr(config.model, part)]
            for part in ("backbone", "neck")}  # fmt: skip
    model = config.model.model_copy(update={} if down == "max" else said)
    with pytest.raises(UserError, match=f"model.down={down} changes nothing"):
        build_detector(config.model_copy(update={"model": model}), 3, placeholder_anchors(model))


def test_dropout_works_while_training_alone() -> None:
    model = detector(("conv", {"out": 64, "kernel": 3, "stride": 8}), ("dropout", {"chance": 0.25}))
    x = torch.rand(1, 3, 256, 256)
    before, after = model.train().graph.layers[0](x), model.graph.layers[1]
    drawn = after(before)
    kept = drawn != 0
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.02)
    torch.testing.assert_close(drawn[kept], before[kept] / 0.75)
    assert torch.equal(model.eval().graph.layers[1](before), before)


def test_every_block_and_choice_is_in_the_docs() -> None:
    text = (Path(__file__).parent.parent / "docs" / "models.md").read_text()
    for name in BLOCKS:
        assert f"block: {name}" in text or f"`{name}`" in text, name
    for name in choices("act") | choices("norm") | choices("down") | choices("init"):
        assert name in text, name
