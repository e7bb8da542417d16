"""Moving pictures: files, streams that break, the video that is written."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.squares import square_model, squares
from yolite import Predictor, video
from yolite.ahead import Behind, read_ahead
from yolite.commands.detect import _part, _write_json
from yolite.processes import Processes
from yolite.video import Frame, Stream, VideoFile, VideoWriter, read_streams

Cli = Callable[..., tuple[int, str, str]]
SIZE = (64, 96)


def truth(number: int) -> tuple[int, int, int, int]:
    return (4 * number, 20, 4 * number + 20, 40)


def film(path: Path, frames: int = 12, rate: float = 10.0) -> Path:
    """A video of a red square that moves 4 px a frame."""
    writer = VideoWriter(path, rate)
    for number in range(frames):
        writer.add(squares(SIZE, [truth(number)]))
    writer.close()
    return path


def facts(path: Path) -> tuple[int, float, tuple[int, int]]:
    """Frames that can be decoded, rate and size, by OpenCV."""
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    return count, capture.get(cv2.CAP_PROP_FPS), (int(capture.get(4)), int(capture.get(3)))


def test_every_frame_is_detected_on(tmp_path: Path) -> None:
    found = list(Predictor(square_model()).predict(film(tmp_path / "a.mp4"), batch=5))
    assert [r.frame for r in found] == list(range(12))
    assert [r.seconds for r in found] == pytest.approx([n / 10 for n in range(12)])
    for number, result in enumerate(found):
        assert torch.allclose(result.boxes, torch.tensor([truth(number)]).float(), atol=2.0), number
    assert {(r.source, r.path) for r in found} == {(str(tmp_path / "a.mp4"), tmp_path / "a.mp4")}


def test_stride_takes_every_so_many_th(tmp_path: Path) -> None:
    found = list(Predictor(square_model()).predict(film(tmp_path / "a.mp4"), stride=5))
    assert [r.frame for r in found] == [0, 5, 10]
    assert [round(r.boxes[0, 0].item() / 4) for r in found] == [0, 5, 10]


@pytest.fixture
def detect(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """``yolite detect`` with the finder of squares in place of a trained network."""
    model = square_model()
    monkeypatch.setattr("yolite.commands.detect.Predictor", lambda *_: Predictor(model))
    run = lambda *words: cli("detect", "--weights", "w", *words)  # noqa: E731
    run.network = model.network  # type: ignore[attr-defined]
    return run


def test_the_command_line_writes_video_and_lines(detect: Cli, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    film(tmp_path / "in" / "a.mp4")
    cv2.imwrite(str(tmp_path / "in" / "still.png"), squares(SIZE, [truth(3)])[..., ::-1])
    film(tmp_path / "in" / "b.avi", 5)
    (tmp_path / "in" / "text.mp4").write_text("no video")
    (tmp_path / "in" / "empty.mkv").write_bytes(b"")
    out = tmp_path / "out"
    status, text, err = detect(tmp_path / "in", "--out", out, "--json", tmp_path / "r.json", "--stride", 2)
    assert status == 0
    assert facts(out / "a.mp4") == (6, 5.0, SIZE), "half the frames at half the rate"
    assert facts(out / "b.mp4") == (3, 5.0, SIZE)
    assert sorted(p.name for p in out.iterdir()) == ["a.mp4", "b.mp4", "still.png"]
    rows = [json.loads(line) for line in (tmp_path / "r.json").read_text().splitlines()]
    assert [r.get("frame") for r in rows if r["path"].endswith("a.mp4")] == [0, 2, 4, 6, 8, 10]
    assert [len(r["detections"]) for r in rows if r["error"] is None] == [1] * 10
    assert "a.mp4: 6 frames, 6 square" in text
    assert detect(tmp_path / "in", "--out", tmp_path / "again")[0] == 0, "a JSON is not needed"
    assert "1 images, 9 frames (0 broken), 2 unreadable" in text
    for name in ("text.mp4", "empty.mkv"):
        assert sum(name in line and "cannot be opened as a video" in line for line in err.splitlines()) == 1, err
    seen = cv2.VideoCapture(str(out / "a.mp4")).read()[1]
    assert (np.abs(seen.astype(int) - squares(SIZE, [truth(0)])[..., ::-1]).max(2) > 60).sum() > 50, "boxes are drawn"


def test_ctrl_c_leaves_a_playable_video_and_whole_lines(detect: Cli, tmp_path: Path) -> None:
    network, calls = detect.network, itertools.count()  # type: ignore[attr-defined]
    real = type(network).__call__

    def interrupted(self: object, images: torch.Tensor) -> list[torch.Tensor]:
        if next(calls) == 7:
            raise KeyboardInterrupt
        answer: list[torch.Tensor] = real(self, images)
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(network), "__call__", interrupted)
        status, text, _ = detect(film(tmp_path / "a.mp4"), "--out", tmp_path / "o", "--json", tmp_path / "r.jsonl")
    assert status == 130
    assert facts(tmp_path / "o" / "a.mp4")[0] == 7
    assert len([json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]) == 7
    assert "a.mp4: 7 frames" in text


# ---- captures that break -------------------------------------------------------------------------------------------


class FakeCapture:
    """Stands for cv2.VideoCapture: ``frames`` says what each read gives, a picture or None."""

    def __init__(self, frames: list[np.ndarray | None] | None, stated: int = 0, rate: float = 50.0) -> None:
        self.frames, self.stated, self.rate, self.released = frames, stated, rate, False
        self.at = -1

    def isOpened(self) -> bool:
        return self.frames is not None

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FRAME_COUNT: self.stated, cv2.CAP_PROP_FPS: self.rate}[what]

    def grab(self) -> bool:
        self.at += 1
        return self.at < len(self.frames or []) and (self.frames or [])[self.at] is not None

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        return True, (self.frames or [])[self.at]

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(0.002)
        return self.retrieve() if self.grab() else (False, None)

    def release(self) -> None:
        self.released = True


def picture(number: int) -> np.ndarray:
    return np.full((8, 8, 3), number, np.uint8)


def test_a_video_is_read_past_the_end_that_it_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count in the header of some containers is an estimate."""
    assert read_fake([picture(n) for n in range(5)], 3, monkeypatch) == "0 1 2 3 4"
    assert read_fake([picture(n) for n in range(5)], 3, monkeypatch, stride=2) == "0 2 4"


def read_fake(frames: list[np.ndarray | None], stated: int, monkeypatch: pytest.MonkeyPatch, stride: int = 1) -> str:
    monkeypatch.setattr(video, "open_capture", lambda _: FakeCapture(frames, stated))
    found = list(VideoFile(Path("a.mp4")).read(stride))
    return " ".join(f"{f.number}" if f.image is not None else f"{f.number}:{f.error}" for f in found)


def test_a_broken_frame_is_counted_and_the_rest_carried_on(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [picture(0), None, picture(2), picture(3)]
    assert read_fake(some, 4, monkeypatch) == "0 1:the frame cannot be decoded 2 3"
    assert read_fake(some, 4, monkeypatch, 2) == "0 1:the frame cannot be decoded 2"
    assert read_fake(some[:1], 9, monkeypatch) == "0 1:the video ends after 1 of the 9 frames it states"
    assert read_fake(some, 0, monkeypatch) == "0", "a header without a count: the first failure is the end"
    assert read_fake([], 9, monkeypatch) == "0:a video without a frame that can be read"
    many: list[np.ndarray | None] = [picture(0), *[None] * 60]
    assert read_fake(many, 10**6, monkeypatch) == "0 1:the video ends after 1 of the 1000000 frames it states"


class Captures:
    """Gives the captures of a list one by one; afterwards the address cannot be reached."""

    def __init__(self, *captures: FakeCapture) -> None:
        self.captures, self.left, self.waited = captures, iter(captures), list[float]()

    def __call__(self, _: str | int) -> FakeCapture:
        return next(self.left, FakeCapture(None))

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        return False


def follow(captures: Captures) -> tuple[list[Frame], Stream]:
    stream = Stream("rtsp://camera", captures, captures.wait)
    return [frame for _, frame in read_streams([stream], idle=0.0002)], stream


def test_a_dropped_stream_is_reached_again() -> None:
    first, second = (FakeCapture([picture(n) for n in part]) for part in (range(3), range(3, 5)))
    captures = Captures(first, FakeCapture(None), FakeCapture([]), second)
    found, stream = follow(captures)
    assert captures.waited[:3] == [1, 2, 4], "longer and longer"
    assert captures.waited[3:] == list(video.WAITS), "from the start again after frames came; then it is given up"
    assert all(c.released for c in captures.captures)
    good = [f for f in found if f.image is not None]
    assert len(good) + stream.skipped == 5
    assert [f.image[0, 0, 0] for f in good] == [f.number for f in good]
    notes = [f.note for f in found if f.note]
    assert notes == ["lost after 3 frames, reached again at attempt 3"]
    assert found[-1].error == "lost, and not reached again in 8 attempts"


def test_an_address_that_never_answers_is_said_once() -> None:
    captures = Captures()
    found, _ = follow(captures)
    assert [f.error for f in found] == ["it cannot be opened: check the address, and that nothing else uses it"]
    assert captures.waited == []


def test_a_file_behind_a_url_ends() -> None:
    captures = Captures(FakeCapture([picture(0)], stated=1))
    found, _ = follow(captures)
    assert [f.number for f in found] == [0]
    assert captures.waited == []


def test_a_slow_reader_gets_the_newest_frame() -> None:
    stream = Stream(0, Captures(FakeCapture([picture(n) for n in range(30)], stated=30)))
    stream.start()
    stream._thread.join()
    frame = stream.take()
    assert (frame.number, stream.skipped, stream.take()) == (29, 29, None)


def test_several_streams_and_a_picture_at_once(detect: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shots = {0: FakeCapture([squares(SIZE, [truth(n)])[..., ::-1] for n in range(20)], 20),
             "rtsp://door/1": FakeCapture([squares(SIZE, [])] * 20, 20)}  # fmt: skip
    monkeypatch.setattr(video, "open_capture", shots.__getitem__)
    cv2.imwrite(str(tmp_path / "still.png"), squares(SIZE, [truth(3)])[..., ::-1])
    monkeypatch.chdir(tmp_path)
    status, text, _ = detect("0", "rtsp://door/1", "still.png", "--out", "o", "--json", "r.jsonl")
    assert status == 0
    rows = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert rows[0]["path"] == "still.png"
    found = {name: [r for r in rows if r["path"] == name] for name in ("camera 0", "rtsp://door/1")}
    assert all(len(rows) > 1 for rows in found.values())
    assert {len(r["detections"]) for r in found["camera 0"]} == {1}
    assert {len(r["detections"]) for r in found["rtsp://door/1"]} == {0}
    assert "camera 0:" in text
    assert all(facts(Path("o") / name)[0] > 0 for name in ("camera-0.mp4", "door-1.mp4"))


def test_a_stream_is_written_at_its_own_speed(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", 10)
    for seconds in (0.0, 0.02, 0.04, 1.0, 1.1):  # a burst, a gap, the ordinary pace
        writer.add(squares(SIZE, []), seconds)
    writer.close()
    assert 11 <= facts(tmp_path / "a.mp4")[0] <= 13
    even = VideoWriter(tmp_path / "b.mp4", 10)
    even.add(None)
    even.add(squares(SIZE, []))
    even.add(None)
    even.add(squares((32, 32), []))
    even.close()
    assert facts(tmp_path / "b.mp4") == (3, 10.0, SIZE), "nothing to repeat at first; another size is made to fit"


# ---- threads -------------------------------------------------------------------------------------------------------


def test_reading_ahead_is_bounded_and_stops() -> None:
    made, closed = [], threading.Event()

    def numbers() -> Iterator[int]:
        try:
            for number in itertools.count():
                made.append(number)
                yield number
        finally:
            closed.set()

    ahead = read_ahead(numbers(), 3)
    assert [next(ahead), next(ahead)] == [0, 1]
    time.sleep(0.05)
    assert len(made) <= 2 + 3 + 1
    ahead.close()
    assert closed.wait(2)


def test_what_a_thread_raises_is_raised() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    ahead = read_ahead(broken(), 2)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="gone"):
        next(ahead)
    behind = Behind(1, 2)
    behind.do(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        behind.finish()


def test_the_lines_of_all_processes_become_one_file(tmp_path: Path) -> None:
    for rank in range(3):
        _part(tmp_path / "r.jsonl", rank).write_text(f'{{"path": "{rank}"}}\n')
    _write_json(tmp_path / "r.jsonl", True, [], Processes(0, 3))
    assert [json.loads(line)["path"] for line in (tmp_path / "r.jsonl").read_text().splitlines()] == ["0", "1", "2"]
    assert [p.name for p in tmp_path.iterdir()] == ["r.jsonl"]
