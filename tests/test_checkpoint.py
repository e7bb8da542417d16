import os
import pickle
from pathlib import Path

import pytest
import torch

from tests.test_models import make
from yolite.checkpoint import (
    describe,
    find_weights,
    load_checkpoint,
    restore_detector,
    restore_preprocess,
    restore_specs,
    save_checkpoint,
    transfer,
)
from yolite.errors import UserError
from yolite.structures import Preprocess


def content(classes: int = 3) -> dict:
    model = make("yolite-n", classes)
    return {
        **describe(model, Preprocess((64, 96), pad=7), [f"c{i}" for i in range(classes)], {"seed": 0}),
        "weights": model.state_dict(),
        "ema": {"decay": 0.9, "updates": 1, "weights": {k: v + 1 for k, v in model.state_dict().items()}},
    }


def test_round_trip(tmp_path: Path) -> None:
    made = content()
    save_checkpoint(tmp_path / "a.ckpt", made)
    read = load_checkpoint(tmp_path / "a.ckpt")
    assert restore_preprocess(read) == Preprocess((64, 96), pad=7)
    assert [s.stride for s in restore_specs(read)] == [8, 16, 32]
    raw, average = restore_detector(read, average=False), restore_detector(read)
    for name, value in made["weights"].items():
        assert torch.equal(raw.state_dict()[name], value)
        assert torch.equal(average.state_dict()[name], value + 1)
    assert not (tmp_path / "a.ckpt.tmp").exists()


def test_a_checkpoint_from_before_a_field_of_the_head_was_added_still_loads(tmp_path: Path) -> None:
    made = content()
    made["specs"] = [{k: v for k, v in s.items() if k not in ("objectness", "classes_per")} for s in made["specs"]]
    save_checkpoint(tmp_path / "a.ckpt", made)
    assert restore_specs(load_checkpoint(tmp_path / "a.ckpt")) == make("yolite-n").specs


class Payload:
    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(Payload.target),))

    target = Path()


def test_a_pickled_object_is_refused_before_it_runs(tmp_path: Path) -> None:
    Payload.target = tmp_path / "executed"
    for writer in (lambda f: torch.save({"schema": 1, "x": Payload()}, f), lambda f: f.write(pickle.dumps(Payload()))):
        with open(tmp_path / "evil.ckpt", "wb") as file:
            writer(file)
        with pytest.raises(UserError):
            load_checkpoint(tmp_path / "evil.ckpt")
        assert not Payload.target.exists()


def test_every_tenth_of_a_truncated_file_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.ckpt", content())
    data = (tmp_path / "a.ckpt").read_bytes()
    for tenth in range(10):
        (tmp_path / "cut.ckpt").write_bytes(data[: len(data) * tenth // 10])
        with pytest.raises(UserError, match="damaged"):
            load_checkpoint(tmp_path / "cut.ckpt")


@pytest.mark.parametrize(
    ("change", "words"),
    [({"schema": 99}, "update yolite"), ({"names": None}, "class names are not"), ({"drop": "specs"}, "lacks specs")],
)
def test_other_schemas(tmp_path: Path, change: dict, words: str | None) -> None:
    made = {**content(), **{k: v for k, v in change.items() if k != "drop"}}
    made.pop(change.get("drop", ""), None)
    torch.save(made, tmp_path / "a.ckpt")
    if words:
        with pytest.raises(UserError, match=words):
            load_checkpoint(tmp_path / "a.ckpt")
    else:
        load_checkpoint(tmp_path / "a.ckpt")


def test_a_checkpoint_of_another_tool(tmp_path: Path) -> None:
    torch.save({"model": torch.zeros(3)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="not a yolite checkpoint"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    import resource

    save_checkpoint(tmp_path / "a.ckpt", content())
    before = (tmp_path / "a.ckpt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match="could not be written"):
            save_checkpoint(tmp_path / "a.ckpt", content(5))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert (tmp_path / "a.ckpt").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ckpt"]


def test_finding_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no checkpoint"):
        find_weights(tmp_path)
    (tmp_path / "last.ckpt").touch()
    assert find_weights(tmp_path) == tmp_path / "last.ckpt"
    (tmp_path / "best.ckpt").touch()
    assert find_weights(tmp_path) == tmp_path / "best.ckpt"
    with pytest.raises(UserError, match="do not exist"):
        load_checkpoint(tmp_path / "no.ckpt")


def test_transfer_to_other_classes_remakes_the_class_layers_alone() -> None:
    model = make("yolite-n", 5)
    kept, new = transfer(model, content(3))
    assert {name.rsplit(".", 1)[0].rsplit(".", 1)[1] for name in new} == {"class_out"}
    assert len(new) == 6
    assert len(kept) + len(new) == len(model.state_dict())
