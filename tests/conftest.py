"""Small data sets that tests write for themselves: nothing comes from outside the repository."""

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import hypothesis
import numpy as np
import pytest
import torch

torch.set_num_threads(1)
# A busy machine is no failure: examples have no time limit of their own.
hypothesis.settings.register_profile("yolite", deadline=None)
hypothesis.settings.load_profile("yolite")

NAMES = ["block", "disc"]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The tests' own cache folder, here and in the processes they start: the user's is left alone."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


def scene(seed: int, size: tuple[int, int] = (96, 128)) -> tuple[np.ndarray, list[tuple[int, tuple[int, ...]]]]:
    """Draw a picture with one to three filled shapes that do not overlap, and return their (label, xyxy)."""
    rng = np.random.default_rng(seed)
    image = np.full((*size, 3), rng.integers(90, 160, 3), np.uint8)
    objects: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(int(rng.integers(1, 4))):
        for _ in range(50):
            w, h = (int(v) for v in rng.integers(18, 44, 2))
            label = int(rng.integers(2))
            if label == 1:
                h = w
            x, y = int(rng.integers(0, size[1] - w)), int(rng.integers(0, size[0] - h))
            if all(x >= b[2] or x + w <= b[0] or y >= b[3] or y + h <= b[1] for _, b in objects):
                break
        else:
            continue
        colour = (230, 40, 40) if label == 0 else (30, 60, 235)
        if label == 0:
            cv2.rectangle(image, (x, y), (x + w - 1, y + h - 1), colour, -1)
        else:
            cv2.circle(image, (x + w // 2, y + w // 2), w // 2, colour, -1)
        objects.append((label, (x, y, x + w, y + h)))
    return image, objects


def write_yolo(root: Path, count: dict[str, int], first: int = 0) -> Path:
    """Write a YOLO data set with `count` scenes a role; return its YAML."""
    number = first
    for role, scenes in count.items():
        (root / "images" / role).mkdir(parents=True)
        (root / "labels" / role).mkdir(parents=True)
        for _ in range(scenes):
            image, objects = scene(number)
            height, width = image.shape[:2]
            cv2.imwrite(str(root / "images" / role / f"s{number:03d}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            rows = [
                f"{label} {(x1 + x2) / 2 / width:.8f} {(y1 + y2) / 2 / height:.8f} "
                f"{(x2 - x1) / width:.8f} {(y2 - y1) / height:.8f}"
                for label, (x1, y1, x2, y2) in objects
            ]
            (root / "labels" / role / f"s{number:03d}.txt").write_text("\n".join(rows) + "\n")
            number += 1
    roles = "".join(f"{role}: images/{role}\n" for role in count)
    (root / "data.yaml").write_text(f"path: .\n{roles}names: {NAMES}\n")
    return root / "data.yaml"


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLO data set of coloured shapes: 16 training and 6 validation scenes."""
    return write_yolo(tmp_path_factory.mktemp("shapes"), {"train": 16, "val": 6})


@pytest.fixture
def three_formats(tmp_path: Path) -> dict[str, Path]:
    """The same six scenes as YOLO txt, COCO json and Pascal VOC."""
    yolo = write_yolo(tmp_path / "yolo", {"train": 6})
    images, annotations = [], []
    voc = tmp_path / "voc"
    for folder in ("Annotations", "ImageSets/Main"):
        (voc / folder).mkdir(parents=True)
    (voc / "JPEGImages").symlink_to(tmp_path / "yolo" / "images" / "train")
    for number in range(6):
        image, objects = scene(number)
        height, width = image.shape[:2]
        images.append({"id": 10 + number, "file_name": f"s{number:03d}.png", "width": width, "height": height})
        xml = f"<annotation><size><width>{width}</width><height>{height}</height></size>"
        for label, (x1, y1, x2, y2) in objects:
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"id": len(annotations) + 1, "image_id": 10 + number, "category_id": 3 + 4 * label,
                                "bbox": box, "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
            xml += (f"<object><name>{NAMES[label]}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
                    f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>")  # fmt: skip
        (voc / "Annotations" / f"s{number:03d}.xml").write_text(xml + "</annotation>")
    (voc / "ImageSets" / "Main" / "train.txt").write_text("".join(f"s{n:03d}\n" for n in range(6)))
    categories = [{"id": 3, "name": "block"}, {"id": 7, "name": "disc"}]
    (tmp_path / "coco.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    (tmp_path / "coco.yaml").write_text("train: {images: yolo/images/train, annotations: coco.json}\n")
    return {"yolo": yolo, "coco": tmp_path / "coco.yaml", "voc": voc}


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process; return (exit status, stdout, stderr)."""
    from yolite.cli import main

    def run(*words: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capfd.readouterr()
        return status, out, err

    return run


MINI = """
model:
  name: mini
  backbone:
    - {block: conv, out: 16, kernel: 3, stride: 2}
    - {block: conv, out: 24, kernel: 3, stride: 2}
    - {block: conv, out: 48, kernel: 3, stride: 2, name: fine}
    - {block: csp, out: 48, n: 1}
    - {block: conv, out: 64, kernel: 3, stride: 2, name: coarse}
  neck:
    - {block: upsample}
    - {block: concat, from: [above, fine], name: joined}
  head:
    - {block: grid_head, from: joined, hidden: 32}
    - {block: grid_head, from: coarse, hidden: 32}
  code: {strides: [8, 16], anchors_per_level: 2}
"""
"""A network that learns eight scenes and is traced in a second."""


@pytest.fixture(scope="session")
def mini_run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: the network above after an overfit of eight scenes, pictures of 96x128 in an input of 96x160."""
    from yolite.cli import main

    folder = tmp_path_factory.mktemp("export")
    (folder / "mini.yaml").write_text(MINI)
    words = ["train", "--data", shapes, "--model", folder / "mini.yaml", "--imgsz", "96x160", "--batch", 4, "--epochs",
             40, "--overfit", 8, "--out", folder / "run", "data.workers=0", "train.precision=fp32", "train.lr=0.01",
             "train.optimizer=adamw", "train.warmup_epochs=3", "data.val=images/train"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def traced_once() -> Iterator[None]:
    """Trace a network and translate it into ONNX once, not for every export; it lasts for all tests after the first."""
    from yolite.commands import bench, export
    from yolite.export import graph, write

    programs: dict[Any, Any] = {}
    protos: dict[Any, Any] = {}

    def key(model: Any) -> tuple[Any, float]:
        return model.limits, sum(float(value.double().abs().sum()) for value in model.state_dict().values())

    def trace(model: Any) -> Any:
        if key(model) not in programs:
            programs[key(model)] = graph.trace(model)
        return programs[key(model)]

    def to_onnx(program: Any, model: Any) -> Any:
        if key(model) not in protos:
            protos[key(model)] = write.to_onnx(program, model)
        return copy.deepcopy(protos[key(model)])

    with pytest.MonkeyPatch.context() as patch:
        for command in (export, bench):
            patch.setattr(command, "trace", trace)
            patch.setattr(command, "to_onnx", to_onnx)
        yield
