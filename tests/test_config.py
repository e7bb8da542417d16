from pathlib import Path

import pytest

from tests.test_explain import loud, saved
from yolite.commands.train import configure
from yolite.config import Config, parse_imgsz, to_plain
from yolite.errors import UserError
from yolite.settings import load_config, make_config, merge, parse_words, replace_setting


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["epohcs=3"], "unknown setting 'epohcs' (did you mean 'train.epochs'?)"),
        (["train.epohcs=3"], "unknown setting 'train.epohcs' (did you mean 'train.epochs'?)"),
        (["augmnt.hflip=0"], "unknown setting 'augmnt.hflip' (did you mean 'augment.hflip'?)"),
        (["loss.asign.ratio=3"], "unknown setting 'loss.asign.ratio' (did you mean 'loss.assign.ratio'?)"),
        (["augmnt=0"], "unknown setting 'augmnt' (did you mean 'augment'?)"),
        (["train.lr=fast"], "train.lr: 'fast' is not a number"),
        (["train.epochs=many"], "train.epochs: 'many' is not a whole number"),
        (["train.epochs=1.5"], "train.epochs: 1.5 is not a whole number"),
        (["train.epochs=0"], "train.epochs: 0 is refused: it should be greater than or equal to 1"),
        (["train=3"], "train: 3 is not a section with keys of its own"),
        (["train.optimizer=adamm"], "train.optimizer: 'adamm' is refused: it should be 'sgd', 'adam', 'adamw'"),
        (["imgsz=321"], "imgsz: 321 is not a multiple of 32 (the coarsest stride): give 320 or 352"),
        (["imgsz=big"], "imgsz: 'big' is not an input size: give S or HxW in px, at least 32"),
        (["lr"], "'lr' is not understood: settings are written key=value, e.g. train.lr=0.01"),
        (["data.workers=some"], "data.workers"),
        (["augment.hflip=2x"], "augment.hflip"),
    ],
)
def test_wrong_settings_get_one_sentence(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(words=words)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_order_of_layers(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("train: {epochs: 5, lr: 0.1, batch: 4}\n")
    config = load_config("yolite-s", file, {"train": {"lr": 0.2, "batch": 8}}, ["train.batch=2"])
    assert (config.model.width, config.train.epochs, config.train.lr, config.train.batch) == (2.0, 5, 0.2, 2)


@pytest.mark.parametrize(
    ("model", "text", "other"),
    [
        ("yolite-s", "model: {name: yolite-n}\n", "yolite-n"),
        ("yolov3", "model: {backbone: [{block: conv, out: 8, kernel: 3}]}\n", "a network of its own"),
    ],
)
def test_two_networks_are_refused(tmp_path: Path, model: str, text: str, other: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=f"--model {model}, but .*c.yaml describes {other}: leave --model out"):
        load_config(model, file)
    if other != "a network of its own":
        assert load_config(other, file).model.name == load_config(None, file).model.name == other


def test_weights_bring_their_network_unless_a_file_names_one(tmp_path: Path) -> None:
    weights = saved(tmp_path / "w.ckpt", loud("yolite-n"), to_plain(load_config("yolite-s", options={"imgsz": 64})))
    file = tmp_path / "c.yaml"
    file.write_text("augment: {hflip: 0.25}\n")
    config = configure(None, file, {"weights": str(weights)}, [])
    assert (config.model.name, config.imgsz, config.augment.hflip) == ("yolite-s", (64, 64), 0.25)
    file.write_text(f"weights: {weights}\n")
    assert configure(None, file, {}, []).model.name == "yolite-s"
    file.write_text(f"weights: {weights}\nmodel: {{name: yolite-n}}\n")
    assert configure(None, file, {}, []).model.name == "yolite-n"


def test_a_plain_config_reads_back_the_same() -> None:
    config = load_config("yolite-n", words=["imgsz=320x256", "train.lr=1e-3"])
    assert config.imgsz == (320, 256)
    assert config.train.lr == 0.001
    assert make_config(to_plain(config)) == config


def test_deciding_a_setting_leaves_the_old_config_alone() -> None:
    config = load_config("yolite-n")
    new = replace_setting(config, "model.code.anchors", [[[1.5, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]])
    assert config.model.code.anchors == "auto"
    assert new.model.code.anchors == [[(1.5, 2.0)], [(3.0, 4.0)], [(5.0, 6.0)]]
    with pytest.raises(Exception, match="frozen"):
        config.seed = 3


def test_merge_changes_neither_side() -> None:
    a, b = {"x": {"y": 1, "z": 2}}, {"x": {"y": 3}}
    assert merge(a, b) == {"x": {"y": 3, "z": 2}}
    assert a == {"x": {"y": 1, "z": 2}}


@pytest.mark.parametrize(
    ("value", "size"), [(320, (320, 320)), ("64", (64, 64)), ("320x256", (320, 256)), ([96, 32], (96, 32))]
)
def test_imgsz(value: object, size: tuple[int, int]) -> None:
    assert parse_imgsz(value) == size


def test_words_nest_and_parse_as_yaml() -> None:
    assert parse_words(["a.b=1", "a.c=[1, 2]", "d=x"]) == {"a": {"b": 1, "c": [1, 2]}, "d": "x"}


def test_include_is_one_level_deep(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("include: b.yaml\n")
    (tmp_path / "b.yaml").write_text("include: c.yaml\n")
    with pytest.raises(UserError, match="one level"):
        load_config(str(tmp_path / "a.yaml"))


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown model 'yolite-x'.*yolite-m"):
        load_config("yolite-x")


def test_every_setting_is_described() -> None:
    def undescribed(section: type, prefix: str = "") -> list[str]:
        out = []
        for name, info in section.model_fields.items():
            if hasattr(info.annotation, "model_fields"):
                out += undescribed(info.annotation, f"{prefix}{name}.")
            elif not info.description:
                out.append(prefix + name)
        return out

    assert undescribed(Config) == []
