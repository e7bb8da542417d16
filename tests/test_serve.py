"""`yolite serve`: a real server process, under load and under hostile uploads."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import pytest

from tests.conftest import scene
from yolite import Predictor

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("python_multipart", reason="the extra serve is not installed")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def server(mini_run: Path) -> Iterator[str]:
    """A server with small limits; its address."""
    words = ["--port", "0", "--concurrency", "6", "--megabytes", "0.5", "--megapixels", "1", "--seconds", "1"]
    process = subprocess.Popen([sys.executable, str(ROOT / "tools" / "serve.py"), "--weights", str(mini_run), *words],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://[\d.]+:\d+", line)
    assert found, line + process.stdout.read()
    yield found[0]
    process.terminate()
    assert process.wait(20) == 143
    left = process.stdout.read()
    assert "Traceback" not in left, left


def png(number: int, size: tuple[int, int] = (96, 128)) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(scene(number, size)[0], cv2.COLOR_RGB2BGR))[1].tobytes()


def ask(url: str, body: bytes | None = None, kind: str = "image/png") -> tuple[int, dict, dict]:
    """(status, JSON, headers) of a request."""
    request = urllib.request.Request(url, body, {"content-type": kind})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read()), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), dict(error.headers)


def form(pictures: dict[str, bytes]) -> bytes:
    parts = [f'--edge\r\ncontent-disposition: form-data; name="images"; filename="{name}"\r\n\r\n'.encode() + data
             for name, data in pictures.items()]  # fmt: skip
    return b"\r\n".join([*parts, b"--edge--\r\n"])


@pytest.mark.slow
def test_the_boxes_are_those_of_the_predictor(server: str, mini_run: Path) -> None:
    """One as the body, several as a form with a bad one among them, at two thresholds."""
    predictor = Predictor(mini_run)
    for conf in (0.25, 0.05):
        status, found, _ = ask(f"{server}/detect?conf={conf}", png(1))
        assert status == 200
        (wanted,) = predictor.predict([png(1)], conf=conf)
        assert found["images"][0]["detections"] == wanted.to_json()["detections"]
        assert found["images"][0]["detections"]
    body = form({"a.png": png(0), "bad.jpg": b"no picture", "b.png": png(2, (150, 100))})
    status, found, _ = ask(f"{server}/detect", body, "multipart/form-data; boundary=edge")
    assert status == 200
    one, bad, two = found["images"]
    assert [one["path"], bad["path"], two["path"]] == ["a.png", "bad.jpg", "b.png"]
    assert (two["width"], two["height"]) == (100, 150)
    assert "not a readable image" in bad["error"]
    assert bad["detections"] == []
    for entry, data in ((one, png(0)), (two, png(2, (150, 100)))):
        (wanted,) = predictor.predict([data])
        for box, other in zip(entry["detections"], wanted.to_json()["detections"], strict=True):
            np.testing.assert_allclose(box["box"], other["box"], atol=2e-3)  # rounded to 1e-3
            assert box["score"] == pytest.approx(other["score"], abs=1e-5)


@pytest.mark.slow
def test_bad_pictures_get_one_sentence(server: str) -> None:
    bomb = cv2.imencode(".png", np.zeros((2000, 2000, 3), np.uint8))[1].tobytes()
    assert len(bomb) < 100_000
    for body, status, part in (
        (b"hello", 400, "not a readable image"),
        (png(1)[:-40], 400, "cut off"),
        (bomb, 400, "more than the 1 million"),
        (b"", 400, "no picture came"),
        (b"x" * 600_000, 413, "0.5 MiB"),
    ):
        got, told, _ = ask(f"{server}/detect", body)
        assert (got, part in told["detail"]) == (status, True), (got, told)
    got, told, _ = ask(f"{server}/detect", b"--edge\r\nnonsense", "multipart/form-data; boundary=edge")
    assert got == 400, told
    got, told, _ = ask(f"{server}/detect", form({f"{n}.png": png(1) for n in range(40)}),
                       "multipart/form-data; boundary=edge")  # fmt: skip
    assert got == 400, told
    assert ask(f"{server}/detect?conf=2", png(1))[0] == 422
    assert ask(f"{server}/health")[1]["status"] == "ok"


def raw(server: str, head: bytes) -> socket.socket:
    host, port = server.removeprefix("http://").split(":")
    link = socket.create_connection((host, int(port)), timeout=10)
    link.sendall(head)
    return link


@pytest.mark.slow
def test_slow_uploads_and_a_chunked_flood_are_ended(server: str) -> None:
    """A body that stops, first lines that stop, and a body that states no size and has no end."""
    start = time.monotonic()
    body = raw(server, b"POST /detect HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nab")
    lines = raw(server, b"POST /detect HTTP/1.1\r\nhost: ")
    flood = raw(server, b"POST /detect HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    try:
        for _ in range(100):
            flood.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    except OSError:
        pass  # it hung up on us
    assert b" 408 " in body.recv(4096)
    assert lines.recv(4096) == b""
    assert time.monotonic() - start < 5
    assert ask(f"{server}/health")[0] == 200
    for link in (body, lines, flood):
        link.close()


@pytest.mark.slow
def test_under_load_all_are_answered_or_told_to_wait(server: str) -> None:
    """Six requests at once are let in; stalled uploads take their places until they are ended."""
    pictures = [png(n) for n in range(6)]
    alone = [ask(f"{server}/detect", data)[1]["images"][0]["detections"] for data in pictures]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda n: ask(f"{server}/detect", pictures[n % 6]), range(120)))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= 6
    for number, (status, found, headers) in enumerate(answers):
        if status == 429:
            assert headers["retry-after"] == "1"
            continue
        for box, other in zip(found["images"][0]["detections"], alone[number % 6], strict=True):
            np.testing.assert_allclose(box["box"], other["box"], atol=2e-3)
    head = b"POST /detect HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nab"
    links = [raw(server, head) for _ in range(6)]
    time.sleep(0.2)
    assert ask(f"{server}/detect", pictures[0])[0] == 429
    assert ask(f"{server}/health")[0] == 200
    for link in links:
        assert b" 408 " in link.recv(4096)
        link.close()
    assert ask(f"{server}/detect", pictures[0])[0] == 200
    text = urllib.request.urlopen(f"{server}/metrics").read().decode()
    counts = {name: float(value) for name, value in re.findall(r"^(yolite_\S+) (\S+)$", text, re.MULTILINE)}
    assert counts['yolite_requests_total{status="429"}'] >= statuses.count(429) + 1
    assert counts["yolite_images_total"] >= 7 + statuses.count(200)
    assert counts["yolite_requests_in_progress"] == 0
    assert counts["yolite_batches_total"] <= counts["yolite_images_total"]


@pytest.mark.slow
def test_the_pages_ask_nobody_else(server: str) -> None:
    for page in ("", "docs"):
        text = urllib.request.urlopen(f"{server}/{page}").read().decode()
        assert "yolite" in text
        assert not re.findall(r"https?://", text)
    described = ask(f"{server}/openapi.json")[1]
    assert set(described["paths"]) == {"/detect", "/health", "/metrics"}


def test_pictures_that_wait_together_go_together() -> None:
    """Four wait while the network is busy: one batch for them, each cut at its own threshold; an error reaches all."""
    import torch

    from yolite.geometry import Letterbox
    from yolite.serving.batcher import Batcher
    from yolite.structures import Detections, Preprocess

    free, started, sizes = Event(), Event(), []

    class Slow:
        def letterbox(self, size):
            return Letterbox.fit(size, Preprocess((32, 32)), 32)

        def __call__(self, images, letterboxes, limits):
            sizes.append((len(images), round(limits.conf, 3)))
            started.set()
            free.wait(10)
            if len(images) == 2:
                raise RuntimeError("no memory")
            boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 5, 5]])
            scores, labels = torch.tensor([0.9, 0.3]), torch.tensor([0, 1])
            return [Detections(boxes, scores, labels, (32, 32)) for _ in letterboxes]

    batcher = Batcher(Slow(), 0.5, 10, 4)  # type: ignore[arg-type]
    image = np.zeros((20, 30, 3), np.uint8)
    first = batcher.submit(image, 0.5)
    started.wait(10)
    others = [batcher.submit(image, conf) for conf in (0.2, 0.5, 0.2, 0.2)]
    last = [batcher.submit(image, 0.2) for _ in range(2)]
    free.set()
    assert [len(one.result(10)) for one in [first, *others]] == [1, 2, 1, 2, 2]
    for one in last:
        assert isinstance(one.exception(10), RuntimeError)
    assert sizes == [(1, 0.5), (4, 0.2), (2, 0.2)]
    batcher.close()


def test_what_serve_refuses(cli, mini_run: Path, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, _, err = cli("serve", "--weights", mini_run, "--port", taken.getsockname()[1])
    assert status == 2
    assert "cannot be listened on" in err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    status, _, err = cli("serve", "--weights", mini_run)
    assert status == 2
    assert err == "error: serve needs the package uvicorn: pip install 'yolite[serve]'\n"
