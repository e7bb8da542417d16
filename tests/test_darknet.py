"""Darknet's files: read as an interpreter of the tests' own reads them, written back, refused where they are wrong."""

import json
import math
import struct
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests import darknet_reference as reference
from yolite.checkpoint import load_checkpoint, restore_detector, restore_preprocess, restore_specs
from yolite.codec import decode, decode_likely
from yolite.commands.darknet import learned_layers, load_network
from yolite.darknet.cfg import read_cfg
from yolite.darknet.weights import Header, read_header, read_weights, write_weights
from yolite.errors import UserError
from yolite.export.runtimes import open_exported
from yolite.models.detector import Detector
from yolite.models.summary import summarise

NET = "[net]\nheight=64\nwidth=96\nchannels=3\n"


def conv(filters: int, size: int = 3, act: str = "leaky", more: str = "batch_normalize=1") -> str:
    return f"[convolutional]\nfilters={filters}\nsize={size}\npad=1\nactivation={act}\n{more}\n"


def yolo(mask: str, classes: int = 2, more: str = "") -> str:
    return f"[yolo]\nmask={mask}\nanchors=10,13, 16,30, 33,23, 30,61\nnum=4\nclasses={classes}\n{more}\n"


# every section of the v3 and v4 family, at an input that is not square
V4 = (
    NET
    + conv(8, act="mish", more="batch_normalize=1\nstride=2")  # 0: 32 x 48
    + "[maxpool]\nsize=2\nstride=2\n"  # 1: 16 x 24
    + conv(8, 1, "swish")  # 2
    + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n"  # 3: 4 channels
    + conv(4, 3, "relu6", "groups=4\nbatch_normalize=1")  # 4
    + "[shortcut]\nfrom=-3, 2\nactivation=leaky\n"  # 5: of 8 channels the first 4
    + conv(8, 3, "relu", "stride=2\nbatch_normalize=1")  # 6: 8 x 12
    + "[avgpool]\n"  # 7
    + conv(8, 1, "logistic", "")  # 8
    + "[scale_channels]\nfrom=-3\nactivation=linear\n"  # 9: 8 x 12
    + conv(8, 1, "tanh")  # 10
    + "[sam]\nfrom=-2\n"  # 11
    + "[maxpool]\nsize=5\nstride=1\n"  # 12
    + "[maxpool]\nsize=2\nstride=1\n"  # 13
    + "[dropout]\nprobability=.3\n"  # 14
    + "[convolutional]\nfilters=8\nsize=3\nstride=2\npadding=1\nactivation=linear\n"  # 15: 4 x 6
    + conv(14, 1, "linear", "")  # 16
    + yolo("2,3", more="scale_x_y=1.05")  # 17: stride 16
    + "[route]\nlayers=-3\n"  # 18: layer 15
    + "[upsample]\nstride=2\n"  # 19: 8 x 12
    + "[route]\nlayers=-1, 11\n"  # 20: 16 channels
    + conv(8, 3, "leaky", "batch_normalize=1\ndilation=2")  # 21
    + conv(14, 1, "linear", "")  # 22
    + yolo("0,1", more="scale_x_y=1.2")  # 23: stride 8
)
V2 = (
    NET
    + conv(8, more="batch_normalize=1\nstride=2")
    + conv(16, more="batch_normalize=1\nstride=2")  # 1: 16 x 24
    + conv(16, more="batch_normalize=1\nstride=2")
    + "[route]\nlayers=1\n"
    + conv(4, 1)
    + "[reorg]\nstride=2\n"  # 16 channels at 8 x 12
    + "[route]\nlayers=-1,-4\n"
    + conv(14, 1, "linear", "")
    + "[region]\nanchors=1,2, 3,1.5\nclasses=2\ncoords=4\nnum=2\nsoftmax=1\n"
)
V1 = (
    "[net]\nheight=64\nwidth=64\n"
    + conv(4, more="stride=2\nbatch_normalize=1")
    + "[maxpool]\nsize=4\nstride=8\n"  # 4 x 4
    + "[local]\nsize=3\nstride=1\npad=1\nfilters=6\nactivation=leaky\n"
    + "[connected]\noutput=5\nactivation=relu\nbatch_normalize=1\n"
    + "[dropout]\nprobability=.5\n"
    + "[connected]\noutput=208\nactivation=linear\n"  # 16 cells x (2 x 5 + 3)
    + "[detection]\nclasses=3\ncoords=4\nside=4\nnum=2\nsoftmax=0\nsqrt=1\n"
)


def build(cfg: str, folder: Path) -> tuple[Detector, list]:
    (folder / "n.cfg").write_text(cfg)
    network, _, detector = load_network(folder / "n.cfg")
    return detector, learned_layers(detector, network)


def pictures(cfg: str) -> torch.Tensor:
    net = reference.sections(cfg)[0][1]
    return torch.rand(1, 3, int(net["height"]), int(net["width"]), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("cfg", "decoders"), [(V4, [23, 17]), (V2, [8])], ids=["v4", "v2"])
def test_every_section_computes_what_darknet_computes(cfg: str, decoders: list[int], tmp_path: Path) -> None:
    numbers = reference.draw(cfg, tmp_path / "n.weights")
    detector, layers = build(cfg, tmp_path)
    assert read_weights(tmp_path / "n.weights", layers) == Header(0, 2, 5, 1234)
    x = pictures(cfg)
    wanted = reference.run(cfg, numbers, x[0])
    with torch.no_grad():
        maps = detector.double().eval()(x.double())
    for ours, number in zip(maps, decoders, strict=True):  # the finest level first
        torch.testing.assert_close(ours[0], wanted[number], rtol=1e-6, atol=1e-6)


def test_yolov1_by_its_vector(tmp_path: Path) -> None:
    """The map's numbers stand where src/detection_layer.c finds them in the vector of the connected layer."""
    numbers = reference.draw(V1, tmp_path / "n.weights")
    detector, layers = build(V1, tmp_path)
    read_weights(tmp_path / "n.weights", layers)
    x = pictures(V1)
    (vector,) = (v.flatten() for v in reference.run(V1, numbers, x[0]).values())
    with torch.no_grad():
        (ours,) = detector.double().eval()(x.double())
    for cell in range(16):
        row, column = divmod(cell, 4)
        for box in range(2):
            place = 16 * (3 + 2) + (cell * 2 + box) * 4
            wanted = torch.cat((vector[place : place + 4], vector[48 + cell * 2 + box, None]))
            torch.testing.assert_close(ours[0, 5 * box : 5 * box + 5, row, column], wanted, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours[0, 10:, row, column], vector[cell * 3 : cell * 3 + 3], rtol=1e-6, atol=1e-6)
    assert detector.fixed_size == (64, 64)


def head(decoder: str, classes: int = 1, anchors: int = 1, act: str = "linear") -> str:
    """A network of two convolutions and stride 32."""
    body = conv(8, more="batch_normalize=1\nstride=32")
    return NET + body + conv(anchors * (5 + classes), 1, act, "") + decoder


def test_yolo_by_hand(tmp_path: Path) -> None:
    """t = (0, ln 3, ln 2, -ln 4, 0, ln 4) at column 2, row 1 of a grid of 2 x 3, scale_x_y 1.2, the second anchor."""
    detector, _ = build(head("[yolo]\nmask=1\nanchors=10,20,30,40\nnum=2\nclasses=1\nscale_x_y=1.2\n"), tmp_path)
    (spec,) = detector.specs
    t = torch.tensor([0, math.log(3), math.log(2), -math.log(4), 0, math.log(4)])
    raw = torch.zeros(6, 2, 3) - 50
    raw[:, 1, 2] = t
    boxes, scores = decode_likely(raw, spec, 0.1)
    x, y = (2 + 1.2 * 0.5 - 0.1) * 32, (1 + 1.2 * 0.75 - 0.1) * 32
    assert boxes[0].tolist() == pytest.approx([x - 30, y - 5, x + 30, y + 5])
    assert scores.tolist() == [[pytest.approx(0.5 * 0.8)]]


def test_new_coords_by_hand(tmp_path: Path) -> None:
    """The convolution's own sigmoid (YOLOv4-csp) is part of the code: size = anchor · (2σ)²."""
    cfg = head("[yolo]\nanchors=10,20\nnum=1\nclasses=1\nscale_x_y=2\nnew_coords=1\n", act="logistic")
    detector, layers = build(cfg, tmp_path)
    numbers = reference.draw(cfg, tmp_path / "n.weights")
    read_weights(tmp_path / "n.weights", layers)
    x = pictures(cfg)
    with torch.no_grad():
        boxes = decode(detector.double().eval()(x.double())[0], detector.specs[0])
    (p,) = reference.run(cfg, numbers, x[0]).values()  # after Darknet's sigmoid
    for row in range(2):
        for column in range(3):
            tx, ty, tw, th, to, tc = p[:, row, column].tolist()
            cx, cy = (column + 2 * tx - 0.5) * 32, (row + 2 * ty - 0.5) * 32
            w, h = tw**2 * 4 * 10, th**2 * 4 * 20
            wanted = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
            assert boxes.boxes[0, 0, row, column].tolist() == pytest.approx(wanted)
            assert boxes.objectness[0, 0, row, column].sigmoid().item() == pytest.approx(to)
            assert boxes.classes[0, 0, row, column, 0].sigmoid().item() == pytest.approx(tc)


def test_region_by_hand(tmp_path: Path) -> None:
    """Anchors count in cells; the classes share one softmax."""
    detector, _ = build(head("[region]\nanchors=1,2\nclasses=2\ncoords=4\nnum=1\nsoftmax=1\n", classes=2), tmp_path)
    raw = torch.zeros(7, 2, 3) - 50
    raw[:, 0, 1] = torch.tensor([0, -math.log(3), 0, math.log(0.5), math.log(4), 0, math.log(3)])
    boxes, scores = decode_likely(raw, detector.specs[0], 0.1)
    x, y = 1.5 * 32, 0.25 * 32
    assert boxes[0].tolist() == pytest.approx([x - 16, y - 16, x + 16, y + 16])
    assert scores[0].tolist() == pytest.approx([0.8 * 0.25, 0.8 * 0.75])


def test_detection_by_hand(tmp_path: Path) -> None:
    """Offsets as they are, squared sizes as shares of the input, confidence times the class's number."""
    detector, _ = build(V1, tmp_path)
    raw = torch.zeros(13, 4, 4)
    raw[5:, 2, 1] = torch.tensor([0.25, 0.5, 0.5, -0.75, 0.8, 0.1, 0.5, 0.2])  # the second box, then the classes
    boxes, scores = decode_likely(raw, detector.specs[0], 0.3)
    x, y, w, h = 1.25 * 16, 2.5 * 16, 0.25 * 64, 0.5625 * 64
    assert boxes[0].tolist() == pytest.approx([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    assert scores[0].tolist() == pytest.approx([0.08, 0.4, 0.16])


@pytest.mark.parametrize("cfg", [V4, V2, V1], ids=["v4", "v2", "v1"])
@pytest.mark.parametrize("version", [(0, 1, 0), (0, 2, 5)], ids=["seen in 4 bytes", "seen in 8 bytes"])
def test_written_and_read_again_is_the_same(cfg: str, version: tuple[int, int, int], tmp_path: Path) -> None:
    path = tmp_path / "a.weights"
    reference.draw(cfg, path, version=version)
    detector, layers = build(cfg, tmp_path)
    header = read_weights(path, layers)
    assert header == Header(*version, 1234) == read_header(path)
    write_weights(tmp_path / "b.weights", layers, header)
    assert (tmp_path / "b.weights").read_bytes() == path.read_bytes()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    read_weights(tmp_path / "b.weights", layers)
    assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())


def test_old_files_hold_connected_layers_transposed(tmp_path: Path) -> None:
    reference.draw(V1, tmp_path / "a.weights")
    _, layers = build(V1, tmp_path)
    read_weights(tmp_path / "a.weights", layers)
    kept = [tensor.clone() for _, layer in layers for tensor in layer.state_dict().values()]
    write_weights(tmp_path / "b.weights", layers, Header(0, 2000, 0))
    a, b = (path.read_bytes()[20:] for path in (tmp_path / "a.weights", tmp_path / "b.weights"))
    assert a != b
    read_weights(tmp_path / "b.weights", layers)
    now = [tensor for _, layer in layers for tensor in layer.state_dict().values()]
    assert all(torch.equal(x, y) for x, y in zip(kept, now, strict=True))


def test_layers_are_named_and_sized_as_in_the_file(tmp_path: Path) -> None:
    detector, layers = build(V4, tmp_path)
    names = [record.name for record in detector.graph.records]
    assert names[:2] == ["convolutional0", "maxpool1"]
    assert names[-2:] == ["convolutional22", "convolutional16"], "the heads last, the finest first"
    assert [name for name, _ in layers] == [f"convolutional{n}" for n in (0, 2, 4, 6, 8, 10, 15, 16, 21, 22)]
    shapes = {layer.name: layer.output for layer in summarise(detector, (64, 96))}
    assert shapes["shortcut5"] == (4, 16, 24)
    assert shapes["maxpool13"] == (8, 8, 12)
    assert shapes["route20"] == (16, 8, 12)
    assert [(s.stride, s.grid_scale, s.anchors[0]) for s in detector.specs] == [
        (8, 1.2, (10.0, 13.0)), (16, 1.05, (33.0, 23.0)),
    ]  # fmt: skip


LINES = V4.count("\n")


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        (V4 + "[lstm]\noutput=3\n", rf"n.cfg, line {LINES + 1}, \[lstm\]: this section is not known"),
        (V4.replace("[upsample]", "[upsampel]"), r"\[upsampel\]: .*did you mean 'upsample'"),
        (
            V4.replace("layers=-1, 11", "layers=-1, 20"),
            r"\[route\]: .* means layer 20, .* only .* 19 stand",
        ),
        (V4.replace("from=-3, 2", "from=-7"), r"\[shortcut\]: from=-7 means layer -2"),
        (V4.replace("layers=-1, 11", "layers=-1, 17"), "reads layer 17, whose numbers are boxes"),
        (V4.replace("layers=-1, 11", "layers=-1, 0"), r"\[route\]: its maps differ in size: 8x8x12, 8x32x48"),
        (V4.replace("groups=4", "groups=3"), "groups=3 divides not both"),
        (V4.replace("activation=mish", "activation=mishh"), r"line 5, \[convolutional\]: .*mishh.*did you mean 'mish'"),
        (V4.replace("filters=14", "filters=15", 1), r"filters=15, but \[yolo\] .* 2 anchors x \(5 \+ 2 classes\) = 14"),
        (V4.replace("filters=14", "stride_x=2\nstride_y=2\nfilters=14", 1), "nor groups, stride or dilation"),
        (V4.replace("=14\nsize=1\npad=1", "=14\nsize=1\npadding=1", 1), "nor groups, stride or dilation"),
        (V4.replace("mask=2,3", "mask=2,4"), "mask=2,4 names an anchor that is not there: num=4"),
        (V4.replace("size=5", "size=five"), r"\[maxpool\]: size=five is not a whole number"),
        (V4.replace("[avgpool]", "nonsense"), "neither a .section. nor key=value"),
        (V4.replace("[dropout]", "[dropout]\ndontload=1"), "dontload=1 is not supported"),
        (V4.replace("from=-2", "from=-3"), r"\[sam\]: a map of 8x8x12 cannot weigh one of 8x1x1"),
        (V4.replace("filters=14", "filters=200000", 1), r"\[convolutional\]: filters=200000 must be at most 100000"),
        (V4.replace("height=64", "height=65"), "must be given and be multiples of 32"),
        (NET + conv(8), "no .yolo., .region. or .detection.: it is no detector"),
        (NET + "[yolo]\nanchors=1,2\n", "must follow the convolution"),
        ("[convolutional]\nfilters=3\n", r"does not begin with a section \[net\]"),
        ("", r"does not begin with a section \[net\]"),
        (V1.replace("sqrt=1", "sqrt=0"), "only coords=4 and sqrt=1"),
        (V1.replace("output=208", "output=207"), r"4 x 4 cells x \(2 boxes x 5 \+ 3 classes\) = 208"),
        (V2.replace("[region]", "[region]\ntree=9k.tree"), "tree=9k.tree is not supported"),
        (V2.replace("[reorg]\nstride=2", "[reorg]\nstride=3"), "stride=3 does not divide its map of 4x16x24"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(cfg: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as caught:
        build(cfg, tmp_path)
    assert "\n" not in str(caught.value)


def test_white_space_and_remarks_mean_nothing(tmp_path: Path) -> None:
    loose = V4.replace("=", " = ").replace("\n", "  # so it is\r\n; [yolo]\n#\n").replace("[dropout]", " [ dropout ]")
    tight, free = (build(cfg, tmp_path)[0] for cfg in (V4, loose))
    assert tight.graph.records == free.graph.records
    assert tight.specs == free.specs


def test_of_an_option_that_stands_twice_the_first_counts(tmp_path: Path) -> None:
    """github.com/AlexeyAB/darknet, src/option_list.c, option_find: it goes from the front."""
    (tmp_path / "n.cfg").write_text("[net]\nwidth=64\nheight=32\nwidth=96\n")
    assert read_cfg(tmp_path / "n.cfg")[0].integer("width", 0) == 64


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A .cfg, its weights, and class names."""
    (tmp_path / "n.cfg").write_text(V4)
    (tmp_path / "n.names").write_text("block\ndisc\n")
    reference.draw(V4, tmp_path / "n.weights")
    return tmp_path / "n.cfg", tmp_path / "n.weights", tmp_path / "n.names"


Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("bytes_left", [0, 11, 19, 20, 4000, -1])
def test_a_truncated_file_leaves_nothing_behind(cli: Cli, model: tuple[Path, ...], bytes_left: int) -> None:
    cfg, weights, names = model
    whole = weights.read_bytes()
    weights.write_bytes(whole[:bytes_left])
    status, _, err = cli("import", cfg, weights, "--names", names, "--out", cfg.parent / "w.ckpt")
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    if bytes_left >= 20 or bytes_left < 0:
        assert f"{len(whole):,} bytes expected, {len(whole[:bytes_left]):,} found: it ends in convolutional" in err
    assert sorted(p.name for p in cfg.parent.iterdir()) == ["n.cfg", "n.names", "n.weights"]


def test_other_things_that_do_not_belong_together(cli: Cli, model: tuple[Path, ...]) -> None:
    cfg, weights, names = model
    out = cfg.parent / "w.ckpt"

    def refused(*words: str | Path) -> str:
        status, _, err = cli("import", *words, "--out", out)
        assert status == 2
        assert not out.exists()
        return err

    names.write_text("block\n")
    assert "2 names expected, one a line, 1 found" in refused(cfg, weights, "--names", names)
    names.write_text("block\nblock\n")
    assert "two classes have the name 'block'" in refused(cfg, weights, "--names", names)
    assert "does not exist" in refused(cfg, weights, "--names", cfg.parent / "no.names")
    assert "cannot be read" in refused(cfg, cfg.parent / "no.weights")
    whole = weights.read_bytes()
    weights.write_bytes(whole + b"\0\0\0\0")
    assert "found: it belongs to another .cfg" in refused(cfg, weights)
    weights.write_bytes(whole[:-4] + struct.pack("<f", math.nan))
    assert "convolutional22 has numbers that are not finite" in refused(cfg, weights)
    weights.write_bytes(whole)
    out.write_text("mine")
    assert "is there already" in cli("import", cfg, weights, "--out", out)[2]
    assert out.read_text() == "mine"


def test_an_imported_model_is_an_ordinary_checkpoint(
    cli: Cli, model: tuple[Path, ...], shapes: Path, tmp_path: Path
) -> None:
    """Import, detect, evaluate, explain, train on other classes and on the same ones, resume."""
    cfg, weights, names = model
    w, run, image = tmp_path / "w.ckpt", tmp_path / "run", shapes.parent / "images" / "val"
    status, out, err = cli("import", cfg, weights, "--names", names, "--out", w)
    assert status == 0, err
    assert "24 layers, 10 of them" in out
    content = load_checkpoint(w)
    assert content["names"] == ["block", "disc"]
    assert restore_preprocess(content).mode == "stretch"
    assert restore_preprocess(content).size == (64, 96)
    detector, layers = build(V4, tmp_path)
    read_weights(weights, layers)
    assert restore_specs(content) == detector.specs
    x = pictures(V4)
    with torch.no_grad():
        pairs = zip(restore_detector(content).eval()(x), detector.eval()(x), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

    assert cli("detect", "--weights", w, image, "--conf", "0.01", "--out", tmp_path / "pictures")[0] == 0
    report = tmp_path / "e.html"
    status, out, err = cli(
        "evaluate", "--weights", w, "--data", shapes, "--json", tmp_path / "e.json", "--report", report
    )
    assert status == 0, err
    assert "no epoch" not in out
    assert "the weights hold no training" in report.read_text()
    assert "<h2>The training</h2>" not in report.read_text()
    assert json.loads((tmp_path / "e.json").read_text())["images"] == 6
    for what in ((image / "s016.png",), ("--batch",)):
        status, _, err = cli("explain", "--weights", w, *what, "--data", shapes, "--out", tmp_path / "explained")
        assert status == 0, err
    assert "stretched" in (tmp_path / "explained" / "s016.html").read_text()
    words = ("--data", shapes, "--batch", "8", "train.checkpoint_steps=1", "data.workers=0", "train.precision=fp32")
    status, out, err = cli("train", "--weights", w, *words, "--epochs", "1", "--out", run)
    assert status == 0, err
    assert "newly drawn" not in out, "the same classes: every number is kept"
    trained = load_checkpoint(run / "last.ckpt")
    assert restore_preprocess(trained) == restore_preprocess(content)
    assert trained["records"] == content["records"]
    status, out, err = cli("train", "--resume", run, "train.epochs=2", "--accept", "train.epochs")
    assert status == 0, err
    assert "resumed at epoch 2" in out


@pytest.mark.slow
def test_an_import_is_exported_without_data_of_its_classes(cli: Cli, model: tuple[Path, ...], tmp_path: Path) -> None:
    """Its boxes are compared on the built-in pictures, its AP is not; wrong data stays wrong, INT8 needs its own."""
    cfg, weights, names = model
    w, out, report = tmp_path / "w.ckpt", tmp_path / "w.pt2", tmp_path / "r.json"
    assert cli("import", cfg, weights, "--names", names, "--out", w)[0] == 0
    status, text, err = cli("export", "--weights", w, "--format", "torchexport", "--out", out, "--json", report)
    assert status == 0, text + err
    assert "knows no data" in text
    rows = {row["name"]: row for row in json.loads(report.read_text())["rows"]}
    assert rows["raw maps, all pictures"]["note"] == "200 pictures"
    assert rows["boxes after NMS, px"]["passed"]
    assert "AP, difference" not in rows
    assert load_checkpoint(w)["names"] == open_exported(out, torch.device("cpu"))[0]["names"]
    status, _, err = cli("export", "--weights", w, "--format", "torchexport", "--data", "digits", "--out", out)
    assert (status, "was trained for 2 classes" in err) == (2, True)
    if find_spec("onnxscript"):
        status, _, err = cli("export", "--weights", w, "--format", "onnx", "--int8")
        assert (status, "give --data" in err) == (2, True)


@pytest.mark.parametrize(("cfg", "head_name"), [(V4, "convolutional16"), (V2, "convolutional7"), (V1, "connected5")],
                         ids=["v4", "v2", "v1"])  # fmt: skip
def test_other_classes_remake_the_head_alone(cli: Cli, shapes: Path, tmp_path: Path, cfg: str, head_name: str) -> None:
    (tmp_path / "n.cfg").write_text(cfg.replace("classes=2", "classes=1").replace("filters=14", "filters=12"))
    reference.draw((tmp_path / "n.cfg").read_text(), tmp_path / "n.weights")
    assert cli("import", tmp_path / "n.cfg", tmp_path / "n.weights", "--out", tmp_path / "w.ckpt")[0] == 0
    status, out, err = cli("train", "--weights", tmp_path / "w.ckpt", "--data", shapes, "--batch", "8", "--epochs", "1",
                           "--out", tmp_path / "run", "data.workers=0", "train.lr=1e-9", "train.ema=0",
                           "train.weight_decay=0", "train.freeze_bn=true")  # fmt: skip
    assert status == 0, err
    line = next(line for line in out.splitlines() if "newly drawn" in line)
    assert head_name in line
    before, after = (load_checkpoint(tmp_path / p) for p in ("w.ckpt", "run/last.ckpt"))
    assert after["names"] == ["block", "disc"]
    heads = [f"layers.{index}." for index in after["outputs"]]
    for name, value in after["weights"].items():
        if any(name.startswith(f"graph.{h}") for h in heads):
            assert before["weights"][name].shape != value.shape, name
        else:
            torch.testing.assert_close(value, before["weights"][name], rtol=0, atol=1e-5, msg=name)


def test_mutants_of_the_reader_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another eps of batch norm is told apart."""
    from yolite.darknet import layers as module

    numbers = reference.draw(V4, tmp_path / "n.weights")
    monkeypatch.setattr(module, "EPS", 1e-3)
    detector, layers = build(V4, tmp_path)
    read_weights(tmp_path / "n.weights", layers)
    x = pictures(V4)
    wanted = reference.run(V4, numbers, x[0])[23]
    with torch.no_grad():
        ours = detector.double().eval()(x.double())[0][0]
    assert (ours - wanted).abs().max() > 1e-5
