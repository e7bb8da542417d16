"""The path from YOLO to YOLOv2: every step switches on what it says, and a finished row is not run again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from yolite.build import build_detector, build_loss, build_specs, placeholder_anchors
from yolite.commands import ablate as verb
from yolite.commands.steps import hand_picked, steps
from yolite.errors import UserError
from yolite.models.detector import Detector
from yolite.models.plain import CellHead, Reorg
from yolite.settings import make_config

Cli = Callable[..., tuple[int, str, str]]
PLAN = steps((128, 192))


@pytest.fixture(scope="module")
def networks() -> dict[str, Detector]:
    configs = {s.key: make_config({"model": {"width": 0.0625}}, s.settings) for s in PLAN}
    return {key: build_detector(c, 3, placeholder_anchors(c.model)) for key, c in configs.items()}


def has(network: Detector, kind: type) -> bool:
    return any(isinstance(module, kind) for module in network.modules())


def test_each_step_switches_on_what_it_says(networks: dict[str, Detector]) -> None:
    keys = list(networks)
    assert keys == ["yolo", "norm", "size", "anchors", "network", "priors", "passthrough", "scales"]
    assert [has(n, torch.nn.BatchNorm2d) for n in networks.values()] == [False] + [True] * 7
    assert [has(n, CellHead) for n in networks.values()] == [True] * 3 + [False] * 5
    assert [has(n, Reorg) for n in networks.values()] == [False] * 6 + [True] * 2
    assert [s.settings["imgsz"] for s in PLAN] == [[64, 96]] * 2 + [[128, 192]] * 6
    assert [n.specs[0].stride for n in networks.values()] == [32, 32, 64, 32, 32, 32, 32, 32]
    assert [n.specs[0].xy for n in networks.values()] == ["linear"] * 3 + ["free"] * 2 + ["sigmoid"] * 3
    assert [len(n.specs[0].anchors) for n in networks.values()] == [3] * 3 + [9] * 2 + [5] * 3
    assert ["multi_scale" in s.settings["train"] for s in PLAN] == [False] * 7 + [True]
    assert networks["anchors"].graph.records[0].arguments["kernel"] == 7
    assert networks["network"].graph.records[0].arguments["kernel"] == 3


def test_the_grid_of_direct_boxes_is_the_same_at_both_resolutions(networks: dict[str, Detector]) -> None:
    """So the step measures resolution alone."""
    assert networks["norm"].eval()(torch.zeros(1, 3, 64, 96))[0].shape[-2:] == (2, 3)
    assert networks["size"].eval()(torch.zeros(1, 3, 128, 192))[0].shape[-2:] == (2, 3)


def test_every_step_has_a_loss_that_its_head_can_have() -> None:
    for step in PLAN:
        config = make_config(step.settings)
        loss = build_loss(config.loss, build_specs(config.model, 3, placeholder_anchors(config.model)))
        assert loss.rule == ("best_iou" if step.key in ("yolo", "norm", "size") else "best_anchor")


def test_hand_picked_anchors() -> None:
    (level,) = hand_picked((200, 200))
    assert level[4] == [50, 50]
    assert {round(w * h, -1) for w, h in level} == {400, 2500, 14400}
    assert level[0][0] < level[0][1]


def test_sizes_whose_half_is_no_size() -> None:
    with pytest.raises(UserError, match="give multiples of 64"):
        steps((96, 96))


def test_a_finished_row_is_not_run_again(
    cli: Cli, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "steps", lambda size: [PLAN_64[0], PLAN_64[-1]])
    out = tmp_path / "a"
    words = ["ablate", "--data", shapes, "--imgsz", "64", "--epochs", "1", "--batch", "8", "--out", out,
             "model.width=0.0625", "data.workers=0"]  # fmt: skip
    status, said, _ = cli(*words, "--seeds", "1")
    assert status == 0
    assert "multi-scale" in said
    rows = json.loads((out / "ablate.json").read_text())["rows"]
    assert [row["step"] for row in rows] == ["YOLO", "multi-scale"]
    for row, run in zip(rows, ("yolo-0", "scales-0"), strict=True):
        results = json.loads((out / run / "results.json").read_text())
        assert (row["AP"], row["recall"], row["AP_spread"]) == (results["AP"], results["AR100"], 0)
    assert (out / "ablate.md").read_text().count("\n") == 4
    assert (out / "ablate.png").stat().st_size > 5000
    done = [path.stat().st_mtime_ns for path in sorted(out.glob("*/*.ckpt"))]
    status, again, _ = cli(*words, "--seeds", "1")
    assert status == 0
    assert "seed 0" not in again
    assert [path.stat().st_mtime_ns for path in sorted(out.glob("*/*.ckpt"))] == done
    status, _, err = cli(*words, "--seeds", "1", "loss.box=3")
    assert status == 2
    assert "holds an ablation with other settings (loss.box" in err


PLAN_64 = steps((64, 64))


def test_what_the_steps_set_cannot_be_given(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    status, _, err = cli("ablate", "--data", shapes, "--out", tmp_path / "a", "model.norm=group")
    assert status == 2
    assert "ablate sets model.norm itself" in err
    assert cli("ablate", "--data", tmp_path / "not-there", "--out", tmp_path / "a")[0] == 2
    assert not (tmp_path / "a").exists()
