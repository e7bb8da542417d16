"""Every setting of the recipe does what it says: optimisers, freezing, rates, sizes, stopping, breaking down."""

import json
import math
from pathlib import Path

import pytest
import torch

from tests.conftest import write_yolo
from tests.programs.gradients import batch
from tests.test_models import make
from tests.test_training import SMALL, train
from yolite.build import build_layers, build_loss
from yolite.checkpoint import load_checkpoint
from yolite.config import LossConfig
from yolite.errors import UserError
from yolite.processes import ALONE
from yolite.settings import load_config
from yolite.structures import HeadSpec, Preprocess
from yolite.training.batch import choose_batch, largest, try_step
from yolite.training.ema import EMA
from yolite.training.loss import DetectionLoss
from yolite.training.optim import (
    build_optimizer,
    freeze,
    learning_rate,
    restore_optimizer,
    set_learning_rate,
    train_mode,
)
from yolite.training.parts import class_loss
from yolite.training.place import Place
from yolite.training.step import Stepper, StepSettings, draw_size, sizes_of
from yolite.training.watch import GradientLog, Watch

LAYERS = build_layers(load_config("yolite-n").model)


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def stepper(model: torch.nn.Module, optimizer: torch.optim.Optimizer, **settings: object) -> Stepper:
    loss = DetectionLoss(5.0, 1.0, 1.0)
    return Stepper(model, Preprocess((64, 96)), loss, optimizer, EMA(model, 0.9), StepSettings(**settings), ALONE)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon", "rmsprop", "adagrad", "adadelta"])
def test_every_optimiser_lowers_the_loss_and_restores(name: str) -> None:
    lr = {"sgd": 0.1, "adagrad": 0.01, "adadelta": 1.0}.get(name, 0.001)
    model = make("yolite-n", 3)
    optimizer = build_optimizer(model, name, lr, 0.9, 0.01)
    step = stepper(model, optimizer, clip=10.0)
    losses = [step([batch([1, 2, 3, 4])], lr, (64, 96)).values["total"] for _ in range(10)]
    assert losses[-1] < 0.97 * losses[0]
    other = build_optimizer(model, name, lr, 0.9, 0.5)
    restore_optimizer(other, optimizer.state_dict())
    assert other.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()
    assert other.param_groups[0]["weight_decay"] == 0.5, "settings are the new ones, moments the old ones"


def test_rates_by_section_and_decay_by_kind() -> None:
    model = make("yolite-n", 3)
    optimizer = build_optimizer(model, "sgd", 0.1, 0.9, 0.05, {"backbone": 0.1, "c5": 0.5, "layers.21.*": 2.0}, LAYERS)
    set_learning_rate(optimizer, 0.2)
    rate = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    found = {n: rate[id(p)] for n, p in model.named_parameters()}
    assert found["graph.layers.0.conv.weight"] == (pytest.approx(0.02), 0.05)
    assert found["graph.layers.0.bn.weight"] == (pytest.approx(0.02), 0.0)
    assert {round(v[0], 9) for n, v in found.items() if n.startswith("graph.layers.8.")} == {0.1}
    assert {round(v[0], 9) for n, v in found.items() if n.startswith("graph.layers.21.")} == {0.4}
    assert found["graph.layers.22.class_out.weight"] == (pytest.approx(0.2), 0.05)
    with pytest.raises(UserError, match="did you mean 'backbone'"):
        LAYERS.check(["backbon"], [n for n, _ in model.named_parameters()], "train.lr_factors")


@pytest.mark.parametrize(("transfer", "learning"), [("all", {"backbone", "neck", "head"}), ("last", {"neck", "head"}),
                                                    ("head", {"head"})])  # fmt: skip
def test_three_ways_of_transfer(transfer: str, learning: set[str]) -> None:
    """What is frozen keeps its weights and its BN statistics; what learns does not."""
    model = make("yolite-n", 3)
    freeze(model, LAYERS, transfer, ())
    optimizer = build_optimizer(model, "sgd", 0.1, 0.9, 0.05)
    train_mode(model)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    stepper(model, optimizer)([batch([2, 3])], 0.1, (64, 96))
    moved = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert {LAYERS.sections[int(n.split(".")[2])] for n in moved} == learning
    if transfer == "all":
        assert any("running_mean" in n for n in moved)


def test_freezing_by_pattern() -> None:
    model = make("yolite-n", 3)
    assert freeze(model, LAYERS, "all", ["layers.0.*", "c3"]) > 3
    frozen = {n.split(".")[2] for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"0", "3"}
    with pytest.raises(UserError, match=r"'c9' matches no layer"):
        freeze(model, LAYERS, "all", ["c9"])
    with pytest.raises(UserError, match="nothing is left to learn"):
        freeze(model, LAYERS, "head", ["head"])


def test_l1_pulls_weights_by_their_sign() -> None:
    model = make("yolite-n", 3)
    optimizer = build_optimizer(model, "sgd", 0.1, 0.0, 0.0)
    gradients = []
    for l1 in (0.0, 0.01):
        train_mode(model, freeze_bn=True)
        stepper(model, optimizer, l1=l1)([batch([2, 3])], 0.0, (64, 96))
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for name, p in model.named_parameters():
        wanted = 0.01 * p.sign() if p.ndim > 1 else torch.zeros_like(p)
        torch.testing.assert_close(gradients[1][name] - gradients[0][name], wanted.detach(), atol=2e-5, rtol=1e-3)


def test_label_smoothing_by_hand() -> None:
    logits, labels = torch.tensor([[2.0, -1.0]]), torch.tensor([0])
    spec = HeadSpec(8, ((8.0, 8.0),), 2)
    p = [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))]
    wanted = -(0.9 * math.log(p[0]) + 0.1 * math.log(1 - p[0])) - (0.1 * math.log(p[1]) + 0.9 * math.log(1 - p[1]))
    assert class_loss(logits, labels, spec, 0.2).item() == pytest.approx(wanted)
    soft = HeadSpec(8, ((8.0, 8.0),), 2, class_code="softmax")
    q = math.exp(2) / (math.exp(2) + math.exp(-1))
    assert class_loss(logits, labels, soft, 0.2).item() == pytest.approx(-0.9 * math.log(q) - 0.1 * math.log(1 - q))


def test_steps_of_the_rate() -> None:
    course = [learning_rate(s, 10, 0, 1.0, 0.01, "step", (0.5, 0.8)) for s in range(10)]
    assert course == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01] * 2)


def test_input_sizes_are_multiples_of_32_in_range_and_repeat() -> None:
    sizes = [draw_size((320, 256), 0.5, 32, 7, draw) for draw in range(60)]
    assert sizes == [draw_size((320, 256), 0.5, 32, 7, draw) for draw in range(60)]
    assert {h for h, _ in sizes} == set(range(160, 481, 32))
    assert all(w % 32 == 0 and abs(w / h - 0.8) < 0.15 for h, w in sizes)
    assert draw_size((320, 256), 0.0, 32, 7, 3) == (320, 256)
    assert sizes[:4] == [(480, 384), (352, 288), (192, 160), (352, 288)]  # a resumed run draws the same


def test_an_input_between_two_cells_is_refused() -> None:
    model = make("yolite-n", 3)
    model.check_size((64, 96))
    with pytest.raises(ValueError, match=r"its coarsest cells have 32 px, so .* cannot be 64x80"):
        model.check_size((64, 80))


def test_input_sizes_follow_a_coarser_grid() -> None:
    assert sizes_of((640, 640), 0.25, 64) == [(side, side) for side in (512, 576, 640, 704, 768)]
    assert sizes_of((416, 416), 0.5, 32)[-1] == (640, 640)
    assert sizes_of((320, 256), 0.0, 32) == [(320, 256)]
    assert {draw_size((640, 640), 0.25, 64, 7, draw) for draw in range(60)} == set(sizes_of((640, 640), 0.25, 64))


def test_the_loss_sees_targets_at_the_drawn_size() -> None:
    """The same pictures at twice the size: boxes grow with them, so the positives are those of the larger grid."""
    model = make("yolite-n", 3)
    step = stepper(model, build_optimizer(model, "sgd", 0.1, 0.0, 0.0))
    one = batch([2, 3, 4])
    double = step._targets(one, (128, 192))
    torch.testing.assert_close(double.boxes, 2 * one.targets.boxes)
    assert step._images(one, (128, 192)).shape == (3, 3, 128, 192)
    assert step._targets(one, (64, 96)).boxes.equal(one.targets.boxes)
    assert step([one], 0.01, (128, 192)).bad is None


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_stays_near_fp32(precision: str) -> None:
    norms, scales = [], []
    for name in ("fp32", precision):
        model = make("yolite-n", 3)
        step = stepper(model, build_optimizer(model, "sgd", 0.1, 0.0, 0.0), precision=name)
        norms.append(step([batch([2, 3, 4])], 0.0, (64, 96)).values["grad_norm"])
        scales.append(step.scaler.get_scale())
    assert norms[1] == pytest.approx(norms[0], rel=0.1)
    assert (scales[1] > 1) == (precision == "fp16")


def test_the_largest_batch_is_found_by_trying() -> None:
    tried = []

    def fits(n: int) -> bool:
        tried.append(n)
        return n <= 37

    assert largest(fits, 512) == 32
    assert tried == [1, 2, 4, 8, 16, 32, 64]
    assert largest(lambda n: True, 100) == 64
    assert largest(lambda n: False, 100) == 0
    model = make("yolite-n", 3)
    loss = build_loss(LossConfig(), model.specs)
    assert choose_batch(model, loss, (64, 64), 0.0, "fp32", 5) == (5, "no GPU to fill")
    try_step(model, loss, 2, (64, 96), "bf16")
    assert all(p.grad is not None for p in model.parameters())


def test_the_run_watches_itself() -> None:
    place = Place(taken=10, sums={"grad_norm": 400.0}, positives=[3.0, 0.0, 0.0], step_seconds=10.0, wait_seconds=8.0)
    watch = Watch(["a", "b", "c"], [5, 4, 0], clip=10.0, cached=True)
    said = watch.remarks(place)
    assert any("class 'b' got no positive" in s and "4 boxes suit no anchor" in s for s in said)
    assert any("class 'c'" in s and "no training box" in s for s in said)
    assert any("loader is slower" in s and "data.workers" in s for s in said)
    assert watch.remarks(place) == [], "each is said once"
    place.epoch = 1
    assert any("gradients are large" in s for s in watch.remarks(place))
    place.sums = {"grad_norm": 1e-8}
    assert any("vanished" in s for s in watch.remarks(place))
    quiet = Place(epoch=1, taken=10, sums={"grad_norm": 20.0}, positives=[3.0], step_seconds=10.0, wait_seconds=1.0)
    assert Watch(["a"], [5], 10.0, True).remarks(quiet) == []


def test_growing_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([2**30, 2**30 + 2**28, 2**31])
    monkeypatch.setattr("yolite.training.watch.memory_now", lambda: next(sizes))
    watch, place = Watch(["a"], [5], 0.0, True), Place(epoch=3, positives=[1.0])
    assert [len(watch.remarks(place)) for _ in range(3)] == [0, 0, 1]


def test_the_gradient_log_forgets_what_is_done_again(tmp_path: Path) -> None:
    model = make("yolite-n", 3)
    stepper(model, build_optimizer(model, "sgd", 0.1, 0.0, 0.0))([batch([2])], 0.0, (64, 96))
    log = GradientLog(tmp_path / "g.jsonl", 2, 0)
    for step in range(1, 7):
        log.note(model, step)
    again = GradientLog(tmp_path / "g.jsonl", 2, 3)
    assert [r["step"] for r in again.rows] == [2]
    again.note(model, 4)
    rows = [json.loads(line) for line in (tmp_path / "g.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [2, 4]
    first = rows[0]["layers"]["layers.0.conv"]
    parameter = dict(model.named_parameters())["graph.layers.0.conv.weight"]
    assert first["weight"] == pytest.approx(parameter.square().mean().sqrt().item())
    assert first["gradient"] == pytest.approx(parameter.grad.square().mean().sqrt().item())


@pytest.mark.slow
def test_early_stopping_by_a_named_metric(cli, shapes: Path, tmp_path: Path) -> None:
    """Best really is the best of that metric, and a run that has stopped is finished."""
    run = tmp_path / "run"
    status, out, err = cli("train", "--data", shapes, *SMALL, "--epochs", 20, "--out", run, "train.best_by=val_loss",
                           "train.patience=1", "train.lr=0.03", "train.gradient_stats=2")  # fmt: skip
    assert status == 0, err
    rows = rows_of(run)
    losses = [r["val_loss"] for r in rows]
    best = losses.index(min(losses)) + 1
    assert len(rows) == best + 1 < 20
    assert "stopped early: no better val_loss for 1 epochs" in out
    assert json.loads((run / "results.json").read_text())["best_epoch"] == best
    assert load_checkpoint(run / "best.ckpt")["training"]["place"]["epoch"] == best
    assert (run / "gradients.png").stat().st_size > 10_000
    assert "% of the training time went by waiting" in out
    status, out, _ = cli("train", "--resume", run)
    assert status == 0
    assert "is finished" in out


def poison(monkeypatch: pytest.MonkeyPatch, at: set[int], weights: bool = False) -> None:
    """Make the class loss of some training steps not a number; ``weights``: the network's too."""
    step, calls = Stepper.__call__, [0]

    def broken(self, *arguments, **named):
        calls[0] += 1
        if calls[0] not in at:
            return step(self, *arguments, **named)
        if weights:
            with torch.no_grad():
                next(self.model.parameters()).fill_(math.nan)
        kind, call = type(self.loss), type(self.loss).__call__

        def nan(loss, *words):
            output = call(loss, *words)
            parts = {**output.parts, "classes": torch.tensor(math.nan)}
            return type(output)(output.total * math.nan, parts, output.positives)

        with monkeypatch.context() as patch:
            patch.setattr(kind, "__call__", nan)
            return step(self, *arguments, **named)

    monkeypatch.setattr(Stepper, "__call__", broken)


@pytest.mark.slow
def test_a_step_that_breaks_down_is_left_out(cli, shapes: Path, tmp_path: Path, monkeypatch) -> None:
    poison(monkeypatch, {3})
    status, _, err = cli("train", "--data", shapes, *SMALL, "--epochs", 2, "--out", tmp_path / "run")
    assert status == 0, err
    assert "epoch 1, step 3: loss part 'classes' is nan; the step was not taken, on at 0.5 times" in err
    assert err.count(".png") >= 4, "the images of the step are named"
    content = load_checkpoint(tmp_path / "run" / "last.ckpt")
    assert all(bool(v.isfinite().all()) for v in content["weights"].values())
    assert content["training"]["place"]["lr_scale"] == 0.5
    assert content["ema"]["updates"] == 7
    assert all(r["loss_total"] == pytest.approx(6.5, abs=1.0) for r in rows_of(tmp_path / "run")), "of the steps taken"
    assert all(math.isfinite(r["loss_total"]) for r in rows_of(tmp_path / "run"))


@pytest.mark.slow
def test_broken_weights_go_back_to_the_last_checkpoint(cli, shapes: Path, tmp_path: Path, monkeypatch) -> None:
    poison(monkeypatch, {7}, weights=True)
    words = ["--data", shapes, *SMALL, "--epochs", 2, "--out", tmp_path / "run", "train.checkpoint_steps=2"]
    status, _, err = cli("train", *words)
    assert status == 0, err
    assert "epoch 2, step 3: loss part 'box' is nan; back to epoch 2, step 2, on at 0.5 times" in err
    content = load_checkpoint(tmp_path / "run" / "last.ckpt")
    assert all(bool(v.isfinite().all()) for v in content["weights"].values())
    assert len(rows_of(tmp_path / "run")) == 2
    assert content["ema"]["updates"] == 8


@pytest.mark.slow
def test_stopping_at_the_first_broken_step(cli, shapes: Path, tmp_path: Path, monkeypatch) -> None:
    poison(monkeypatch, {6})
    status, _, err = cli("train", "--data", shapes, *SMALL, "--epochs", 3, "--out", tmp_path / "run",
                         "train.on_nonfinite=stop")  # fmt: skip
    assert status == 2
    assert "training broke down in epoch 2, step 2: loss part 'classes' is nan; the images of this step: " in err
    assert load_checkpoint(tmp_path / "run" / "last.ckpt")["training"]["place"]["epoch"] == 1


@pytest.mark.slow
def test_a_run_that_always_breaks_down_ends(cli, shapes: Path, tmp_path: Path, monkeypatch) -> None:
    poison(monkeypatch, set(range(1, 100)))
    status, _, err = cli("train", "--data", shapes, *SMALL, "--epochs", 9, "--out", tmp_path / "run")
    assert status == 2
    assert "training broke down" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "ends"), [(["train.lr=1e4", "train.precision=fp32"], 0), (["loss.box=1e38", "train.precision=fp16"], 2)]
)
def test_what_cannot_be_trained_goes_back_until_it_can_or_ends(
    cli, shapes: Path, tmp_path: Path, words: list[str], ends: int
) -> None:
    """A rate that blows the weights up is halved until it does not; a loss that overflows at any rate ends the run."""
    run = tmp_path / "run"
    status, _, err = cli("train", "--data", shapes, *SMALL, "--epochs", 2, "--out", run, "train.optimizer=sgd",
                         "train.warmup_epochs=0", *words)  # fmt: skip
    assert status == ends, err
    assert "back to epoch 1, step 0" in err
    assert ("training broke down in epoch" in err) == (ends == 2)
    content = load_checkpoint(run / "last.ckpt")
    assert all(bool(v.isfinite().all()) for v in content["ema"]["weights"].values())
    assert content["training"]["place"]["lr_scale"] < 1 or ends


@pytest.mark.slow
def test_accepting_a_change_by_name(cli, tmp_path: Path) -> None:
    data = write_yolo(tmp_path / "d", {"train": 4, "val": 2})
    run = tmp_path / "run"
    train(cli, "--data", data, *SMALL, "--epochs", 2, "--out", run)
    for words, told in (
        (["--epochs", 3, "train.lr=0.001"], "--accept train.epochs --accept train.lr"),
        (["model.width=2"], "cannot change within a run: model.width: 0.5 -> 2.0"),
        (["train.best_by=AP50"], "cannot change within a run: train.best_by: AP -> AP50"),
        (["--accept", "train.lrr"], "--accept train.lrr: unknown setting (did you mean 'train.lr'?)"),
        (["--accept", "train.lr"], "train.lr: that setting does not differ"),
    ):
        status, _, err = cli("train", "--resume", run, *words)
        assert status == 2
        assert told in err
    status, _, err = cli("train", "--resume", run, "--epochs", 3, "--accept", "train.epochs", "--device", "auto")
    assert status == 0, err
    assert "train.epochs: 2 -> 3" in err
    assert [r["epoch"] for r in rows_of(run)] == [1, 2, 3]
    assert "epochs: 3" in (run / "config.yaml").read_text()
    (tmp_path / "d" / "labels" / "train" / "s000.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    status, _, err = cli("train", "--resume", run, "train.epochs=4", "--accept", "train.epochs")
    assert status == 2
    assert "train: 1 images with other labels (first: s000)" in err
    words = ["--resume", run, "--epochs", 4, "--accept", "train.epochs", "--accept", "data"]
    train(cli, *words)
    assert len(rows_of(run)) == 4


@pytest.mark.slow
def test_overfit_keeps_what_was_asked_for(cli, shapes: Path, tmp_path: Path) -> None:
    train(cli, "--data", shapes, *SMALL, "--overfit", 4, "--epochs", 1, "augment.hflip=0.25", "--out", tmp_path / "run")
    config = load_checkpoint(tmp_path / "run" / "last.ckpt")["config"]
    assert (config["augment"]["hflip"], config["augment"]["mosaic"]) == (0.25, 0.0)


def test_bad_recipes(cli, shapes: Path, tmp_path: Path) -> None:
    for words, told in (
        (["train.freeze=[nose]"], "train.freeze: 'nose' matches no layer"),
        (["train.lr_factors={nose: 1}"], "train.lr_factors: 'nose' matches no layer"),
        (["train.accumulate=5"], "give --batch 5 or more"),
        (["--imgsz", 32, "train.accumulate=4"], "gives batch norm nothing to average"),
        (["train.lr=1e39"], "train.lr"),
        (["--batch", "many"], "train.batch"),
        (["train.optimizer=lion"], "train.optimizer"),
        (["train.best_by=mAP"], "train.best_by"),
        (["--accept", "data"], "--accept belongs to --resume"),
    ):
        status, _, err = cli("train", "--data", shapes, *SMALL, *words, "--out", tmp_path / "run")
        assert (status, told in err) == (2, True), err
    assert not (tmp_path / "run").exists()
    empty = write_yolo(tmp_path / "d", {"train": 4, "val": 2})
    for file in (tmp_path / "d" / "labels" / "train").glob("*.txt"):
        file.write_text("")
    status, _, err = cli("train", "--data", empty, "--overfit", 2, "--out", tmp_path / "run")
    assert status == 2
    assert "no labelled image" in err
