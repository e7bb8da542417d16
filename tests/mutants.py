# ruff: noqa: E501
"""Plant known mistakes into a copy of the package and show that the tests notice each: ``python tests/mutants.py``.

Not part of the suite (it runs the suite's parts a dozen times); run it when a test or the code it guards changes.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# what is broken, file, the true text, the mutant, the tests that must notice
MUTANTS = [
    ("CIoU: sign of the distance term", "boxes.py", "diou = iou - offset", "diou = iou + offset", "test_boxes.py"),
    ("CIoU: aspect term left out", "boxes.py", "return diou - alpha * v", "return diou", "test_boxes.py"),
    ("CIoU: gradient through alpha", "boxes.py", "with torch.no_grad():", "with torch.enable_grad():", "test_boxes.py"),
    ("GIoU: enclosing box by minimum", "boxes.py", "high = torch.maximum(a[..., 2:], b[..., 2:])\n    side = high - low",
     "high = torch.minimum(a[..., 2:], b[..., 2:])\n    side = high - low", "test_boxes.py"),
    ("stride left out of the decode", "codec.py", "- (s - 1) / 2) * spec.stride\n    if",
     "- (s - 1) / 2) * 8\n    if", "test_codec.py test_pipeline.py"),
    ("grid scale's offset left out", "codec.py", "+ s * t[..., 0:2].sigmoid() - (s - 1) / 2)",
     "+ s * t[..., 0:2].sigmoid())", "test_codec.py"),
    ("anchor order reversed", "codec.py", "torch.tensor(spec.anchors,", "torch.tensor(spec.anchors[::-1],",
     "test_codec.py test_assign.py test_pipeline.py"),
    ("x and y of the grid swapped", "codec.py", "torch.stack((columns, rows), dim=-1)",
     "torch.stack((rows, columns), dim=-1)", "test_codec.py test_pipeline.py"),
    ("pad not subtracted", "geometry.py", "clip((boxes - shift) / scale, self.image)",
     "clip(boxes / scale, self.image)", "test_geometry.py test_pipeline.py"),
    ("no-object weight halved", "training/loss.py", "weight = torch.ones_like(target)",
     "weight = torch.ones_like(target) / 2", "test_loss.py"),
    ("ignore rule upside down", "training/loss.py", "masked_fill(near & ~positive, 0.0)", "masked_fill(near & positive, 0.0)", "test_loss.py"),
    ("a crowd becomes a target", "training/assign.py", "index = (~targets.ignore)", "index = (targets.ignore == targets.ignore)",
     "test_assign.py"),
    ("neighbour on the wrong side", "training/assign.py", "((-1.0, inside[:, axis] < reach), (1.0,",
     "((1.0, inside[:, axis] < reach), (-1.0,", "test_assign.py"),
    ("EMA decay without its ramp", "training/ema.py", "min(self.decay, (1 + self.updates) / (10 + self.updates))",
     "self.decay", "test_training.py"),
    ("class offset by one", "evaluation/coco.py", "found.labels.double()[:, None] + 1", "found.labels.double()[:, None]",
     "test_evaluation.py test_pipeline.py"),
    (">= for > in NMS", "nms.py", "_kernel(boxes64[:take], rank[:take], iou)",
     "_kernel(boxes64[:take], rank[:take], iou - 1e-9)", "test_nms.py"),
    ("NMS across classes", "nms.py", "labels[order].double() * span", "labels[order].double() * 0", "test_nms.py"),
    ("k-means keeps the worst start", "anchors.py", "best = max(runs,", "best = min(runs,", "test_anchors.py"),
    ("half px of the warp left out", "data/mosaic.py", "tx - x1 + (s - 1) / 2", "tx - x1 + 3 * (s - 1)", "test_transforms.py"),
    ("every picture half a px to the right", "data/mosaic.py", "[s, 0, tx - x1 + (s - 1) / 2]", "[s, 0, tx - x1 + s / 2]",
     "test_augmentation.py"),
    ("the flipped boxes' x and y swapped", "data/transforms.py", "moved = torch.as_tensor(np.asarray(out[\"bboxes\"], np.float32).reshape(-1, 4))",
     "moved = torch.as_tensor(np.asarray(out[\"bboxes\"], np.float32).reshape(-1, 4))[:, [1, 0, 3, 2]]", "test_augmentation.py"),
    ("pad not taken off the boxes", "data/pictures.py", "letterbox.apply(sample.boxes) - shift", "letterbox.apply(sample.boxes)",
     "test_augmentation.py"),
    ("motion blur to one side", "data/transforms.py", "direction_range=(0.0, 0.0)", "direction_range=(-1.0, 1.0)", "test_augmentation.py"),
    ("both flips draw one number", "data/transforms.py", "derived(seed, 1)", "seed", "test_augmentation.py"),
    ("a covered box stays", "data/mix.py", "visible_share(hidden, layer.boxes) >= min_visible", "visible_share(hidden, layer.boxes) >= 0",
     "test_augmentation.py"),
    ("a box under a hole stays", "data/transforms.py", "(visible_share(shown == 0, boxes) >= self._min_visible)",
     "(visible_share(shown == 0, boxes) >= 0)", "test_augmentation.py"),
    ("a picture shown again is the same picture again", "data/balance.py", "order[place] + times * len(weights)", "order[place]",
     "test_balance.py"),
    ("repeat factor without its root", "data/balance.py", "np.sqrt(t * len(samples) / np.maximum(1, images))",
     "(t * len(samples) / np.maximum(1, images))", "test_balance.py"),
    ("ticks not spread over the whole epoch", "data/balance.py", "* (total / weights.sum())", "* 1.0", "test_balance.py"),
    ("class weight of the wrong class", "training/loss.py", "logits.new_tensor(weights)[labels]", "logits.new_tensor(weights)[labels - 1]",
     "test_loss.py"),
    ("class weights shrink the divisor", "training/loss.py", "weights)[labels]).sum() if weights",
     "weights)[labels]).sum() / logits.new_tensor(weights)[labels].mean() if weights", "test_loss.py"),
    ("Soft-NMS: the overlap in place of what is left", "nms.py", "torch.where(overlap > iou, 1 - overlap, 1.0)",
     "torch.where(overlap > iou, overlap, 1.0)", "test_nms.py"),
    ("DIoU-NMS by plain IoU", "nms.py", 'boxes, "diou") <= iou', "boxes) <= iou", "test_nms.py"),
    ("fusion: coordinates not weighted", "nms.py", "sums[near] += weight * box\n        mass[near] += weight",
     "sums[near] += box\n        mass[near] += 1", "test_nms.py"),
    ("a mirrored view's boxes stay mirrored", "views.py",
     "torch.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), 1)", "boxes", "test_views.py"),
    ("pieces at a seam are not joined", "views.py", "agree = (matched_iou(first, second) > limits.iou)",
     "agree = (matched_iou(first, second) > 2)", "test_views.py"),
    ("pieces count beside the whole", "views.py", "return ((share > COVERED) &", "return ((share > 2) &", "test_views.py"),
    ("what a border cuts counts as whole", "views.py", ".abs() < near) & inner", ".abs() < 0) & inner", "test_views.py"),
    ("digits are mirrored", "views.py", "(scale, mirrored and mirrors) for scale, mirrored in SCALES",
     "(scale, mirrored) for scale, mirrored in SCALES", "test_views.py"),
    ("a batch computed together", "inference.py", "parts = images.split(1) if self.alone else (images,)",
     "parts = (images + (len(images) > 1) * 1e-4,)", "test_predictor.py"),
    ("BGR taken for RGB", "sources.py", "wide[..., 2::-1] if bgr else", "wide[..., :3] if bgr else", "test_predictor.py"),
    ("every frame whatever the stride", "video.py", "number % stride == 0", "number % 1 == 0", "test_video.py"),
    ("the video is not closed after an interrupt", "commands/found.py", "self._frames.wait()\n        video.close()",
     "self._frames.wait()", "test_video.py"),
    ("a lost stream is not reached again", "video.py", "if tries == len(WAITS):", "if tries == 0:", "test_video.py"),
]  # fmt: skip


def dies(file: str, true: str, mutant: str, tests: str) -> bool:
    """Run the tests on a copy of the repository with one text replaced; return whether they fail."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("yolite", "configs", "data", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("generated", "__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        path = copy / "yolite" / file
        text = path.read_text()
        if text.count(true) < 1:
            raise SystemExit(f"{file} no longer holds {true!r}: mend tests/mutants.py")
        path.write_text(text.replace(true, mutant))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", *(f"tests/{t}" for t in tests.split())]
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise SystemExit(f"the tests could not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.returncode == 1


def main() -> int:
    """Plant every mutant; exit 1 if one survives."""
    survivors = 0
    for name, *mutant in MUTANTS:
        dead = dies(*mutant)
        survivors += not dead
        print(f"{'noticed ' if dead else 'SURVIVED'}  {name}", flush=True)
    print(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
