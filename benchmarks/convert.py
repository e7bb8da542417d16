"""Convert real data sets round through all formats, compare the boxes bit for bit and the 12 COCO numbers.

    python benchmarks/convert.py --shared DATA

Each set goes to YOLO txt, from there to COCO, to VOC and to YOLO again. After each step every role is read back: the
float32 boxes, labels, names, image bytes and the order of images are compared with what the source gave, and so are the
12 numbers of made-up detections (the true boxes, shifted and scored by a fixed seed). The table says in how many boxes
and numbers they differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from yolite.console import Console
from yolite.data.dataset import Split
from yolite.evaluation.coco import coco_metric
from yolite.reading import build_dataset
from yolite.settings import make_config
from yolite.structures import Detections, Sample

ROOT = Path(__file__).resolve().parent.parent
SETS = {"bccd": ("train", "val", "test"), "cards": ("train", "val"), "coco128": ("train", "val")}
STEPS = ("yolo", "coco", "voc", "yolo")


def load(source: Path, role: str) -> Split:
    """Read a role."""
    return build_dataset(make_config({"data": {"source": str(source)}}), Console()).load(role)


def detections(sample: Sample, generator: torch.Generator) -> Detections:
    """Return the true boxes, each side moved by up to a fifth of the box, with scores."""
    sides = (sample.boxes[:, 2:] - sample.boxes[:, :2]).repeat(1, 2)
    boxes = sample.boxes + (torch.rand(sides.shape, generator=generator) - 0.5) * 0.4 * sides
    return Detections(boxes, torch.rand(len(boxes), generator=generator), sample.labels, sample.size)


def differences(read: Split, made: Split) -> dict[str, int]:
    """Count the images and boxes that are not the same, and the numbers of the metric."""
    generator = torch.Generator().manual_seed(0)
    found = [detections(sample, generator) for sample in read.samples]
    numbers = [coco_metric(split.samples, found, split.names).numbers for split in (read, made)]
    pairs = list(zip(read.samples, made.samples, strict=True))
    return {
        "images": len(pairs),
        "boxes": read.boxes,
        "images that differ": sum(a.path.read_bytes() != b.path.read_bytes() or a.size != b.size
                                  for a, b in pairs),
        "boxes that differ": sum(int(((a.boxes != b.boxes).any(1) | (a.labels != b.labels)).sum()) for a, b in pairs),
        "numbers that differ": sum(numbers[0][name] != numbers[1][name] for name in numbers[0]),
        "names that differ": int(read.names != made.names),
    }  # fmt: skip


def main() -> None:
    """Run all sets; print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with bccd, cards and coco128")
    shared = parser.parse_args().shared
    rows = []
    for name, roles in SETS.items():
        with tempfile.TemporaryDirectory() as folder:
            last, way = shared / name, name
            for number, to in enumerate(STEPS):
                out = Path(folder) / f"{number}-{to}"
                words = ["convert", "--data", str(last), "--to", to, "--out", str(out)]
                subprocess.run([sys.executable, "-m", "yolite", *words], check=True, capture_output=True)
                last, way = out, f"{way} > {to}"
                for role in roles:
                    rows.append({"way": way, "role": role, **differences(load(shared / name, role), load(out, role))})
                    print(" | ".join(map(str, rows[-1].values())), flush=True)
    (ROOT / "benchmarks" / "results" / "convert.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
