import pytest
import torch

from yolite.build import build_detector, placeholder_anchors
from yolite.errors import UserError
from yolite.models.detector import Detector, fused
from yolite.models.graph import Graph, LayerRecord
from yolite.models.summary import summarise
from yolite.paths import shipped
from yolite.settings import load_config

MODELS = sorted(p.stem for p in shipped("configs").glob("yolite-*.yaml"))


def make(name: str, classes: int = 3, *words: str) -> Detector:
    config = load_config(name, words=words)
    return build_detector(config, classes, placeholder_anchors(config.model))


@pytest.mark.parametrize("name", MODELS)
def test_every_config_at_a_size_that_is_not_square(name: str) -> None:
    model = make(name)
    maps = model(torch.rand(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(2, 3 * 8, 64 // s, 96 // s) for s in (8, 16, 32)]
    sum(m.square().mean() for m in maps).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == [], "every parameter gets a gradient"


def test_train_and_eval_mode_give_the_same_kind_of_answer() -> None:
    model = make("yolite-n")
    x = torch.rand(1, 3, 64, 64)
    for m in (model.train(), model.eval()):
        assert [tuple(t.shape) for t in m(x)] == [(1, 24, 8, 8), (1, 24, 4, 4), (1, 24, 2, 2)]


def test_the_seed_decides_the_weights() -> None:
    a, b, c = make("yolite-n"), make("yolite-n"), make("yolite-n", 3, "seed=1")
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert not torch.equal(a.graph.layers[0].conv.weight, c.graph.layers[0].conv.weight)


def test_convolutions_before_bn_have_no_bias() -> None:
    from yolite.models.blocks import Conv

    assert all(m.conv.bias is None for m in make("yolite-n").modules() if isinstance(m, Conv))


def test_fusing_changes_nothing_but_rounding() -> None:
    torch.manual_seed(0)
    model = make("yolite-n").train()
    for _ in range(3):
        model(torch.rand(4, 3, 64, 64))  # BN statistics that are not 0 and 1
    model.eval()
    x = torch.rand(2, 3, 64, 96)
    for a, b in zip(model(x), fused(model)(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_records_are_plain_and_rebuild_the_network() -> None:
    model = make("yolite-s")
    records = [LayerRecord.from_plain(r.to_plain()) for r in model.graph.records]
    again = Detector(records, model.specs, model.graph.outputs)
    again.load_state_dict(model.state_dict())
    x = torch.rand(1, 3, 64, 64)
    for a, b in zip(model.eval()(x), again.eval()(x), strict=True):
        assert torch.equal(a, b)


def test_objectness_starts_low() -> None:
    model = make("yolite-n").eval()
    raw = model(torch.rand(1, 3, 64, 64))[0].view(1, 3, 8, 8, 8)
    assert raw[:, :, 4].sigmoid().mean().item() == pytest.approx(0.01, abs=0.005)


def test_flops_by_hand() -> None:
    """A 3×3 convolution of 3 → 16 channels at stride 2 on 64×96: 2 · 32 · 48 · 16 · 27."""
    layers = summarise(make("yolite-n"), (64, 96))
    assert layers[0].output == (16, 32, 48)
    assert layers[0].flops == 2 * 32 * 48 * 16 * 27
    assert layers[0].parameters == 16 * 27 + 2 * 16
    assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in make("yolite-n").parameters())


def test_receptive_field_equals_where_the_gradient_reaches() -> None:
    """Independent of the formula: the input px that one cell of layer c3 depends on, read off a gradient."""
    model = make("yolite-n").double().train(False)
    index = next(i for i, r in enumerate(model.graph.records) if r.name == "c3")
    part = Graph(model.graph.records[: index + 1], [index]).double().eval()
    for module in part.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 1.0)
    x = torch.full((1, 3, 160, 160), 1e-3, dtype=torch.float64, requires_grad=True)
    part(x)[0][0, 0, 10, 10].backward()
    reached = x.grad[0].abs().sum(0).sum(0).nonzero()
    width = int(reached.max() - reached.min()) + 1
    assert summarise(model.float(), (160, 160))[index].receptive == width


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([LayerRecord("nothing", (-1,), {})], "unknown block"),
        ([LayerRecord("conv", (-1,), {"out": 8, "colour": 3})], "unknown argument 'colour'"),
        ([LayerRecord("conv", (0,), {"out": 8})], "not an earlier layer"),
    ],
)
def test_wrong_records_are_refused(records: list[LayerRecord], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Graph(records, [0])


def test_a_layer_that_names_no_earlier_one() -> None:
    config = load_config("yolite-n")
    rows = [*config.model.neck]
    rows[1] = {**rows[1], "from": ["above", "c9"]}
    model = config.model.model_copy(update={"neck": rows})
    with pytest.raises(UserError, match=r"reads 'c9'.*did you mean 'c"):
        build_detector(config.model_copy(update={"model": model}), 3, placeholder_anchors(model))
