"""Backbones of torchvision: the maps of torchvision's own networks, weights only from files, normalisation kept."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from yolite.build import build_detector, build_preprocess, placeholder_anchors
from yolite.checkpoint import describe, load_checkpoint, restore_detector, restore_preprocess, save_checkpoint
from yolite.config import to_plain
from yolite.console import Console
from yolite.errors import UserError
from yolite.models.backbones import NETS, Stage
from yolite.models.detector import Detector, fused, initialise
from yolite.models.graph import Graph, LayerRecord
from yolite.models.summary import summarise
from yolite.paths import shipped
from yolite.settings import load_config, make_config
from yolite.structures import HeadSpec
from yolite.training.prepare import prepare
from yolite.training.pretrained import find_pretrained, load_pretrained

CONFIGS = {
    load_config(p.stem).model.backbone[0].get("net"): p.stem
    for p in sorted(shipped("configs").glob("yolite-*.yaml"))
    if "torchvision" in p.read_text()
}


def make(net: str) -> Detector:
    config = load_config(CONFIGS[net])
    return build_detector(config, 3, placeholder_anchors(config.model))


def whole(net: str) -> nn.Module:
    """The network as torchvision makes it, with its usual first weights and statistics that are not 0 and 1."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(models, net)(weights=None, **({"init_weights": False} if net in ("vgg16", "googlenet") else {}))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def test_every_network_has_a_config_that_normalises_as_it_wants() -> None:
    assert set(CONFIGS) == set(NETS)
    for net, name in CONFIGS.items():
        preprocess = load_config(name).preprocess
        assert (preprocess.mean, preprocess.std) == (NETS[net].mean, NETS[net].std)


@pytest.mark.parametrize("net", ["resnet18", "mobilenet_v3_small", "googlenet"])
def test_loaded_weights_give_torchvisions_own_classes(net: str, tmp_path: Path) -> None:
    """The three stages, torchvision's classifier behind them, answer as its whole network: before and after fusing."""
    own = whole(net)
    torch.save(own.state_dict(), tmp_path / "w.pth")
    config = load_config(CONFIGS[net])
    model = make(net).eval()
    load_pretrained(model, {net: tmp_path / "w.pth"}, build_preprocess(config), Console(quiet=True))
    x = torch.rand(2, 3, 64, 96)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (NETS[net].mean, NETS[net].std))
    imagenet = [torch.tensor(v).view(1, 3, 1, 1) for v in (NETS["resnet18"].mean, NETS["resnet18"].std)]
    if net == "googlenet":  # its own way from what suits the others to what suits it
        own.transform_input = True
    with torch.no_grad():
        expected = own((x - imagenet[0]) / imagenet[1])
        for network in (model, fused(model)):
            y = (x - mean) / std
            for layer in network.graph.layers[:3]:
                y = layer(y)
            classes = own.classifier if hasattr(own, "classifier") else own.fc
            torch.testing.assert_close(classes(y.mean((2, 3))), expected, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused(model).modules())


def test_vgg_without_its_classifier_takes_torchvisions_weights(tmp_path: Path) -> None:
    with torch.device("meta"):  # without its 120 million numbers of classifier
        own = models.vgg16(init_weights=False).features
    own.to_empty(device="cpu")
    for parameter in own.parameters():
        nn.init.normal_(parameter, std=0.05)
    weights = {f"features.{name}": value for name, value in own.state_dict().items()}
    torch.save(weights, tmp_path / "w.pth", _use_new_zipfile_serialization=False)  # as old as torchvision's file
    model = make("vgg16")
    preprocess = build_preprocess(load_config("yolite-vgg16"))
    load_pretrained(model, {"vgg16": tmp_path / "w.pth"}, preprocess, Console(quiet=True))
    x = torch.randn(1, 3, 32, 64)
    torch.testing.assert_close(nn.Sequential(*model.graph.layers[:3])(x), own(x))


def test_what_is_no_file_of_the_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = load_config("yolite-resnet18").model.backbone
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(UserError, match=r"nothing is downloaded: put torchvision's file resnet18-\w+\.pth there"):
        find_pretrained(rows, "cache")
    with pytest.raises(UserError, match="is no file"):
        find_pretrained(rows, str(tmp_path))
    with pytest.raises(UserError, match="no torchvision block"):
        find_pretrained(load_config("yolite-n").model.backbone, "cache")
    there = tmp_path / "torch" / "hub" / "checkpoints" / models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    there.parent.mkdir(parents=True)
    preprocess, model = build_preprocess(load_config("yolite-resnet18")), make("resnet18")
    for content, words in (
        (b"PK nothing", "damaged or no file of weights"),
        ([torch.zeros(1)], "holds no table of weights"),
        ({"conv1.weight": torch.zeros(1)}, r"is not of resnet18: conv1.weight is \(1,\), not \(64, 3, 7, 7\)"),
        ({}, "conv1.weight is missing"),
    ):
        if isinstance(content, bytes):
            there.write_bytes(content)
        else:
            torch.save(content, there)
        with pytest.raises(UserError, match=words):
            load_pretrained(model, find_pretrained(rows, "cache"), preprocess, Console(quiet=True))


def test_normalisation_travels_with_the_checkpoint_and_another_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(whole("mobilenet_v3_small").state_dict(), tmp_path / "w.pth")
    config, model = load_config("yolite-mobilenetv3-small"), make("mobilenet_v3_small")
    files = {"mobilenet_v3_small": tmp_path / "w.pth"}
    load_pretrained(model, files, build_preprocess(config), Console())
    assert "the checkpoint says so" in capsys.readouterr().out
    save_checkpoint(
        tmp_path / "a.ckpt",
        {**describe(model, build_preprocess(config), ["a", "b", "c"], to_plain(config)), "weights": model.state_dict(),
         "ema": None},
    )  # fmt: skip
    content = load_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "w.pth").unlink()
    again = restore_detector(content).eval()
    grey = torch.full((1, 3, 64, 64), 124, dtype=torch.uint8)
    assert restore_preprocess(content).normalise(grey)[0, :, 0, 0].tolist() == pytest.approx(
        [(124 / 255 - m) / s for m, s in zip(config.preprocess.mean, config.preprocess.std, strict=True)], abs=1e-5
    )
    x = torch.rand(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(again(x), model.eval()(x), strict=True))
    load_pretrained(model, {**files, "mobilenet_v3_small": _saved(tmp_path, model)}, build_preprocess(load_config()),
                    Console())  # fmt: skip
    assert "want pictures normalised otherwise" in "".join(capsys.readouterr())


def _saved(folder: Path, model: Detector) -> Path:
    """torchvision's file again, from the stages."""
    weights = {}
    for stage in model.graph.layers[:3]:
        weights |= {f"features.{name}": value for name, value in stage.layers.state_dict().items()}
    torch.save(weights, folder / "w.pth")
    return folder / "w.pth"


@pytest.mark.parametrize("net", sorted(NETS))
def test_the_first_stage_sees_as_far_as_the_summary_says(net: str) -> None:
    records = [
        LayerRecord("torchvision", (-1,), {"net": net, "stage": 1}),
        LayerRecord("grid_head", (0,), {"anchors": 1, "classes": 1}),
    ]
    model = Detector(records, [HeadSpec(8, ((8.0, 8.0),), 1)], [1])
    said = summarise(model, (64, 64))[0].receptive
    part = Graph(records[:1], [0]).eval()
    for module in list(part.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):  # passes the gradient to one cell; an average passes it to all
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
            if type(child).__name__ == "SqueezeExcitation":  # a gate, which sees everything
                setattr(module, name, nn.Identity())
    x = torch.ones(1, 3, 192, 192, requires_grad=True)
    part(x)[0][0, :, 12, 12].sum().backward()
    reached = x.grad[0].abs().sum((0, 1)).nonzero()
    assert said == int(reached.max() - reached.min()) + 1


def test_first_weights_are_drawn_like_all_others() -> None:
    a, b = make("mobilenet_v3_small"), make("mobilenet_v3_small")
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    stage = Stage([256], "vgg16", 2)
    initialise(stage, 0)
    hidden = stage.layers[0]
    assert hidden.weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    assert not hidden.bias.any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"net": "resnet19", "stage": 1}, "net 'resnet19' is unknown; there are resnet18"),
     ({"net": "vgg16", "stage": 4}, "stage 4 is none of 1, 2, 3")],
)  # fmt: skip
def test_wrong_rows_are_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Graph([LayerRecord("torchvision", (-1,), arguments)], [0])


def test_a_run_starts_from_the_file_and_needs_it_no_more(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fine-tuning and resuming do not ask for the file again; a wrong place is said before the data is read."""
    own = whole("mobilenet_v3_small")
    torch.save(own.state_dict(), tmp_path / "w.pth")
    asked = {"data": {"source": str(shapes), "workers": 0}, "imgsz": 96, "overfit": 2,
             "train": {"transfer": "last", "batch": 2}}  # fmt: skip
    words = [f"model.pretrained={tmp_path / 'w.pth'}"]
    config = load_config("yolite-mobilenetv3-small", options=asked, words=words)
    prepared = prepare(config, Console())
    state, said = prepared.detector.state_dict(), "".join(capsys.readouterr())
    assert "mobilenet_v3_small: 206 tensors from" in said
    assert "as they were drawn at random" not in said
    assert torch.equal(state["graph.layers.2.layers.12.0.weight"], own.features[12][0].weight)
    assert torch.equal(state["graph.layers.0.layers.0.1.running_var"], own.features[0][1].running_var)
    assert not prepared.detector.graph.layers[0].layers[0][0].weight.requires_grad, "transfer=last freezes it"
    save_checkpoint(
        tmp_path / "a.ckpt",
        {**describe(prepared.detector, prepared.preprocess, prepared.names, to_plain(prepared.config)),
         "weights": state, "ema": None},
    )  # fmt: skip
    (tmp_path / "w.pth").unlink()
    tuned = load_config("yolite-mobilenetv3-small", options={**asked, "weights": str(tmp_path / "a.ckpt")}, words=words)
    again = prepare(tuned, Console()).detector.state_dict()
    assert "is not read: --weights gives the weights" in capsys.readouterr().out
    assert all(torch.equal(again[name], value) for name, value in state.items())
    prepare(prepared.config, Console(quiet=True), resuming=True)
    with pytest.raises(UserError, match=r"w\.pth is no file"):
        prepare(make_config(to_plain(config), {"data": {"source": "nowhere"}}), Console())
