"""Make the pictures of docs/how-yolo-works.md by what `yolite explain` draws.

``python docs/pictures.py RUN IMAGE SMALL``: RUN is a run on the built-in digits (``python tools/train.py``), IMAGE and
SMALL are two of its validation pictures (those in the documents: val-0045 and val-0008); the smallest object of SMALL
shows what down-sampling leaves.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from yolite.build import build_augment, build_loss, build_preprocess  # noqa: E402
from yolite.checkpoint import find_weights, load_checkpoint, restore_detector, restore_preprocess  # noqa: E402
from yolite.commands.explain import LIMITS  # noqa: E402
from yolite.console import Console  # noqa: E402
from yolite.data.images import read_image  # noqa: E402
from yolite.data.loader import TrainLoader  # noqa: E402
from yolite.data.pictures import Pictures  # noqa: E402
from yolite.explain import pictures as draw  # noqa: E402
from yolite.explain.batch import draw_picture  # noqa: E402
from yolite.explain.canvas import side_by_side  # noqa: E402
from yolite.explain.formula import read_cell  # noqa: E402
from yolite.explain.sight import look, stages  # noqa: E402
from yolite.explain.trace import Trace, follow  # noqa: E402
from yolite.explain.truth import Truth, read_truth  # noqa: E402
from yolite.geometry import Image  # noqa: E402
from yolite.inference import Inference, TorchNetwork  # noqa: E402
from yolite.reading import build_dataset  # noqa: E402
from yolite.report.pictures import jpeg  # noqa: E402
from yolite.settings import make_config  # noqa: E402
from yolite.structures import Targets  # noqa: E402

FOLDER = ROOT / "docs" / "pictures"
WIDTH, MOST = 860, 60_000
"""px and bytes that a picture may have."""


def save(name: str, images: Sequence[Image]) -> None:
    """Write pictures side by side."""
    row = side_by_side(images, max(image.shape[0] for image in images))
    scale = min(1.0, WIDTH / row.shape[1])
    size = (round(row.shape[1] * scale), round(row.shape[0] * scale))
    row = np.asarray(cv2.resize(row, size, interpolation=cv2.INTER_AREA), np.uint8)
    data = next(data for quality in (85, 75, 65, 55, 45) if len(data := jpeg(row, quality)) < MOST)
    (FOLDER / f"{name}.jpg").write_bytes(data)
    print(f"{name}.jpg: {row.shape[1]}x{row.shape[0]}, {len(data) // 1000} kB")


def main(run: str, image: str, small: str) -> None:
    """Make all of them."""
    FOLDER.mkdir(exist_ok=True)
    content = load_checkpoint(find_weights(run))
    config = make_config(content["config"], {"device": "cpu"})
    inference = Inference(TorchNetwork(restore_detector(content), torch.device("cpu")), restore_preprocess(content))
    specs = inference.detector.specs
    loss = build_loss(config.loss, specs)
    trace = follow(inference, read_image(Path(image)), LIMITS)
    dataset = build_dataset(config, Console())
    samples = {s.path.resolve(): s for role in dataset.roles for s in dataset.read(role).samples if s.path}
    sample = samples[Path(image).resolve()]
    boxes = trace.letterbox.apply(sample.boxes)
    targets = Targets(boxes, sample.labels, torch.zeros(len(boxes), dtype=torch.int64), sample.ignore)
    picture(trace, read_truth(trace.maps, specs, targets, loss), inference, content["names"])
    other, there = follow(inference, read_image(Path(small)), LIMITS), samples[Path(small).resolve()]
    least = min(other.letterbox.apply(there.boxes).tolist(), key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    save("remains", [draw.draw_remains(other, least, [stage.stride for stage in stages(inference, other)])])
    train = Pictures(dataset.read("train").samples, build_preprocess(config))
    batch = next(TrainLoader(train, build_augment(config), 4, config.seed, 1, workers=0).epoch(0))
    truth = read_truth(inference.forward(batch.images), specs, batch.targets, loss)
    pixels = batch.images.permute(0, 2, 3, 1).numpy()
    save("batch", [draw_picture(pixels[n], truth, n, specs) for n in range(4)])


def picture(trace: Trace, truth: Truth, inference: Inference, names: Sequence[str]) -> None:
    """Make those of one picture."""
    levels = range(len(trace.specs))
    place = trace.likeliest()
    cell = read_cell(trace, place)
    for step in [*cell.steps, *cell.score_steps]:
        print(f"{step.what} = {step.formula} = {step.numbers} = {step.value:.4f}")
    sight = look(inference, trace, place, cell.best[0])
    scales = stages(inference, trace)
    save("grid", [draw.draw_grid(trace, n, place) for n in levels])
    save("cell", [draw.draw_cell(trace, cell, step) for step in (1, 2, 3)])
    save("objectness", [draw.draw_objectness(trace, n) for n in levels])
    save("truth", [draw.draw_truth(trace.pixels, truth, 0, n, trace.specs[n].stride) for n in levels])
    save("nms", [draw.draw_found(trace, names, False), draw.draw_found(trace, names, True)])
    save("sight", [draw.draw_influence(trace, sight, cell), draw.draw_cam(trace, sight, cell)])
    save("stages", [draw.draw_stages(trace, scales)])
    print(f"receptive {sight.receptive}, influence {sight.sides}, candidates {len(trace.candidates)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
