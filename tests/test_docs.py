"""The examples of docs/detect.md are run as they stand there."""

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.test_checkpoint import content
from tests.test_video import FakeCapture, film
from yolite import video
from yolite.checkpoint import save_checkpoint
from yolite.data.images import write_image

TEXT = (Path(__file__).parent.parent / "docs" / "detect.md").read_text()
BLOCKS = re.findall(r"^```(python|sh)( supervision)?\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples name."""
    made = content(3)
    made["ema"] = None
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    save_checkpoint(tmp_path / "runs" / "mine" / "best.ckpt", made)
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    for name in ("photo.jpg", "folder/a.png", "more/b.png"):
        write_image(tmp_path / name, noise)
    film(tmp_path / "clip.mp4", 4)
    real = video.open_capture
    live = {0, "rtsp://camera/door"}
    monkeypatch.setattr(video, "open_capture", lambda a: FakeCapture([noise] * 3, 3) if a in live else real(a))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_examples() -> None:
    assert {kind for kind, _, _ in BLOCKS} == {"python", "sh"}
    assert len(BLOCKS) >= 9


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_an_example_runs(number: int, place: Path, cli: Callable[..., tuple[int, str, str]]) -> None:
    kind, needs, text = BLOCKS[number]
    if needs:
        supervision = pytest.importorskip("supervision")
        if not hasattr(supervision, "ByteTrack"):
            pytest.skip("another release than that of the extra")
    if kind == "python":
        exec(compile(text, f"docs/detect.md, example {number}", "exec"), {})
        return
    words = shlex.split(text)
    if words[0] == "torchrun":  # the same with one process: tests/test_processes.py starts several
        words = ["yolite", "detect", *words[words.index("tools/detect.py") + 1 :]]
    assert words.pop(0) == "yolite"
    status, out, err = cli(*words)
    assert (status, err) == (0, "")
    assert "pictures in found" in out
    assert os.listdir("found")
