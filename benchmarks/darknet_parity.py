"""Imported Darknet models against OpenCV's own reading of the same files.

    python3 -m venv C && C/bin/pip install 'opencv-python-headless<5'
    python benchmarks/darknet_parity.py --opencv C/bin/python --shared ../shared/data

``raw``: one picture, the same network input for both; the largest difference of the raw maps of all heads, as a
share of the largest number in them, and of the decoded boxes, as a share of the largest of those. Models without
published weights get random ones, written as a .weights file: batch norm's statistics are those of the picture, so that
no layer's output dies out or grows. ``boxes``: confidence 0.25, NMS IoU 0.5 on the pictures of coco128; a box is the
same if one of the other's has its class, an IoU above 0.99 and a score that differs by less than 0.001. ``dog``: what
is found on dog.jpg. A finished row lies in benchmarks/results/darknet_parity.json and is not run again. Exit 1 if a
figure misses its aim (1e-4, 99 %).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from yolite.boxes import pairwise_iou, xyxy_to_cxcywh
from yolite.build import build_preprocess
from yolite.codec import decode
from yolite.commands.darknet import learned_layers, load_network
from yolite.darknet.weights import read_weights, write_weights
from yolite.data.images import read_image
from yolite.geometry import Letterbox
from yolite.models.detector import Detector, fused
from yolite.postprocess import Thresholds, postprocess
from yolite.structures import Preprocess

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "darknet_parity.json"
REAL = {
    "yolo-fastest 1.0": "yolo-fastest-1.0/yolo-fastest",
    "yolo-fastest 1.1": "yolo-fastest-1.1/yolo-fastest-1.1",
    "yolo-fastest 1.1-xl": "yolo-fastest-1.1/yolo-fastest-1.1-xl",
    "mobilenetv2-yolov3-nano": "mobilenetv2-yolov3-nano/MobileNetV2-YOLOv3-Nano-coco",
}
RANDOM = ["tiny-yolo-voc", "yolov2", "yolov2-tiny", "yolov2-voc", "yolov3-tiny", "yolov3", "yolov3-spp", "yolov4-tiny",
          "yolov4-tiny-3l", "yolov4", "yolov4-csp", "yolov4-tiny 320x512"]  # fmt: skip
"""Names of .cfg files; a size (height x width) after one takes the place of the file's own."""
CONF, IOU = 0.25, 0.5
AIM, SAME = 1e-4, 0.99


def load(cfg: Path) -> tuple[Detector, Preprocess, list[tuple[str, nn.Module]]]:
    """Build a network from its .cfg; return it, how it is fed, and its layers in the order of a .weights file."""
    network, config, detector = load_network(cfg)
    return detector, build_preprocess(config), learned_layers(detector, network)


def draw_weights(detector: Detector, image: torch.Tensor) -> None:
    """Give a network random weights that keep the variance of every layer's output, whatever its depth.

    Batch norm shifts by half a deviation: around 0 a hundred random layers multiply every rounding error (torch's own
    float32 is then 3e-4 away from its float64 on yolov4), which trained networks do not.
    """
    generator = torch.Generator().manual_seed(0)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.8, 1.2, generator=generator)
            nn.init.normal_(module.bias, 0.5, 0.2, generator=generator)
        elif isinstance(module, nn.Conv2d):
            kind = "relu" if module.bias is None else "linear"  # a head's numbers go through exp
            nn.init.kaiming_normal_(module.weight, nonlinearity=kind, generator=generator)
    detector.train()
    with torch.no_grad():
        detector(image)  # its statistics become those of batch norm
    detector.eval()


def run_opencv(python: Path, cfg: Path, weights: Path, images: np.ndarray, *words: str) -> dict[str, np.ndarray]:
    """Run the same input through OpenCV."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "images.npy", Path(folder) / "out.npz"
        np.save(given, images)
        script = ROOT / "benchmarks" / "darknet_opencv.py"
        subprocess.run([str(python), str(script), *map(str, (cfg, weights, given, made)), *words], check=True)
        return dict(np.load(made))


def pixels(path: Path, preprocess: Preprocess) -> np.ndarray:
    """Return the network input [3, H, W] uint8 of a picture."""
    image = read_image(path)
    return Letterbox.fit((image.shape[0], image.shape[1]), preprocess).pixels(image).transpose(2, 0, 1)


def compare_raw(python: Path, cfg: Path, weights: Path | None, picture: Path, scratch: Path) -> dict[str, Any]:
    """Compare raw maps and decoded boxes of one picture."""
    detector, preprocess, layers = load(cfg)
    image = pixels(picture, preprocess)[None]
    x = preprocess.normalise(torch.from_numpy(image))
    if weights is None:
        weights = scratch / f"{cfg.stem}.weights"
        draw_weights(detector, x)
        write_weights(weights, layers)
    read_weights(weights, layers)
    with torch.inference_mode():
        maps = fused(detector)(x)
    theirs = run_opencv(python, cfg, weights, image)
    raw, boxes = [], []
    for spec, ours, index in zip(detector.specs, maps, detector.graph.outputs, strict=True):
        number = "".join(filter(str.isdigit, detector.graph.records[index].name))
        other = torch.from_numpy(theirs[f"raw{number}"])
        raw.append(float((ours - other).abs().max() / other.abs().max()))
        height, width = preprocess.size
        shares = xyxy_to_cxcywh(decode(ours, spec).boxes)[0] / torch.tensor([width, height, width, height])
        rows = torch.from_numpy(theirs[f"rows{number}"])[:, :4].view(*ours.shape[2:], len(spec.anchors), 4)
        boxes.append(float((shares.permute(1, 2, 0, 3) - rows).abs().max() / rows.abs().max()))
    return {"input": f"{preprocess.size[0]}x{preprocess.size[1]}", "raw": max(raw), "decoded": max(boxes),
            "opencv": str(theirs["opencv"]), "torch": torch.__version__}  # fmt: skip


def resized(cfg: Path, size: str, scratch: Path) -> Path:
    """Write a .cfg anew with another input size, HxW."""
    text = cfg.read_text()
    for key, value in zip(("height", "width"), size.split("x"), strict=True):
        text = re.sub(rf"(?m)^{key}\s*=.*$", f"{key}={value}", text)
    made = scratch / f"{cfg.stem}-{size}.cfg"
    made.write_text(text)
    return made


def compare_boxes(python: Path, cfg: Path, weights: Path, pictures: list[Path]) -> dict[str, Any]:
    """Compare the boxes after NMS of many pictures."""
    detector, preprocess, layers = load(cfg)
    read_weights(weights, layers)
    detector = fused(detector)
    images = np.stack([pixels(path, preprocess) for path in pictures])
    theirs = run_opencv(python, cfg, weights, images, "--boxes", str(CONF), str(IOU))
    same, counts = 0, [0, 0]
    itself = Letterbox.fit(preprocess.size, replace(preprocess, mode="stretch"))
    for number, image in enumerate(images):
        with torch.inference_mode():
            maps = detector(preprocess.normalise(torch.from_numpy(image)[None]))
        found = postprocess(maps, detector.specs, [itself], Thresholds(CONF, IOU, 1000, best_class=True))[0]
        rows = torch.from_numpy(theirs[str(number)]).float()
        height, width = preprocess.size
        rows[:, 0:4:2].clamp_(0, width)
        rows[:, 1:4:2].clamp_(0, height)
        fits = pairwise_iou(found.boxes, rows[:, :4]) > 0.99
        fits &= found.labels[:, None] == rows[:, 5]
        fits &= (found.scores[:, None] - rows[:, 4]).abs() < 1e-3
        same += min(int(fits.any(1).sum()), int(fits.any(0).sum()))
        counts[0] += len(found)
        counts[1] += len(rows)
    return {"pictures": len(pictures), "boxes": counts[0], "boxes_opencv": counts[1], "same": same / max(counts)}


def find_on_dog(python: Path, cfg: Path, weights: Path, names: list[str], picture: Path) -> dict[str, Any]:
    """Let both detect on the network input that OpenCV's own resize gives (bilinear, as in Darknet)."""
    import cv2

    detector, preprocess, layers = load(cfg)
    read_weights(weights, layers)
    height, width = preprocess.size
    image = cv2.resize(read_image(picture), (width, height), interpolation=cv2.INTER_LINEAR)
    with torch.inference_mode():
        maps = fused(detector)(preprocess.normalise(torch.from_numpy(image).permute(2, 0, 1)[None]))
    itself = Letterbox.fit(preprocess.size, replace(preprocess, mode="stretch"))
    found = postprocess(maps, detector.specs, [itself], Thresholds(CONF, IOU, 100, best_class=True))[0]
    theirs = run_opencv(python, cfg, weights, image.transpose(2, 0, 1)[None], "--boxes", str(CONF), str(IOU))["0"]
    pairs = zip(found.labels.tolist(), found.scores.tolist(), strict=True)
    return {
        "found": {names[label]: round(score, 3) for label, score in pairs},
        "opencv": {names[int(label)]: round(float(score), 3) for score, label in theirs[:, 4:]},
    }


def show(rows: list[dict[str, Any]]) -> bool:
    """Print the tables; return whether every figure reaches its aim."""
    print("| model | weights | input | raw maps, max of a − b over max of b | decoded boxes |\n|---|---|---|---|---|")
    for row in rows:
        if row["kind"] == "raw":
            print(f"| {row['model']} | {row['weights']} | {row['input']} | {row['raw']:.1e} | {row['decoded']:.1e} |")
    print("\n| model | pictures | boxes | of OpenCV | the same |\n|---|---|---|---|---|")
    for row in rows:
        if row["kind"] == "boxes":
            print(
                f"| {row['model']} | {row['pictures']} | {row['boxes']} | {row['boxes_opencv']} | {row['same']:.2%} |"
            )
    for row in rows:
        if row["kind"] == "dog":
            both = [", ".join(f"{k} {v}" for k, v in row[who].items()) for who in ("found", "opencv")]
            print(f"\n{row['model']} on dog.jpg: {both[0]}; OpenCV: {both[1]}")
    return all(row.get("raw", 0) < AIM and row.get("decoded", 0) < AIM and row.get("same", 1) >= SAME for row in rows)


def main() -> None:
    """Run what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opencv", type=Path, required=True, help="Python of an environment with OpenCV 4")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder with darknet and coco128")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    darknet, coco = given.shared / "darknet", given.shared / "coco128" / "images"
    dog, names = darknet / "images" / "dog.jpg", (darknet / "coco.names").read_text().split("\n")
    rows: list[dict[str, Any]] = json.loads(given.results.read_text()) if given.results.exists() else []
    jobs = (
        [("raw", model) for model in (*REAL, *RANDOM)] + [("boxes", m) for m in REAL] + [("dog", "yolo-fastest 1.1-xl")]
    )
    with tempfile.TemporaryDirectory() as scratch:
        for kind, model in jobs:
            if any((row["kind"], row["model"]) == (kind, model) for row in rows):
                continue
            stem, _, size = model.partition(" ")
            cfg = darknet / (f"{REAL[model]}.cfg" if model in REAL else f"cfg/{stem}.cfg")
            weights = cfg.with_suffix(".weights")
            if size and model not in REAL:
                cfg = resized(cfg, size, Path(scratch))
            if kind == "raw":
                figures = compare_raw(given.opencv, cfg, weights if model in REAL else None, dog, Path(scratch))
                figures["weights"] = "published" if model in REAL else "random"
            elif kind == "boxes":
                figures = compare_boxes(given.opencv, cfg, weights, sorted(coco.rglob("*.jpg")))
            else:
                figures = find_on_dog(given.opencv, cfg, weights, names, dog)
            rows.append({"kind": kind, "model": model, **figures})
            given.results.parent.mkdir(parents=True, exist_ok=True)
            given.results.write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(0 if show(rows) else 1)


if __name__ == "__main__":
    main()
