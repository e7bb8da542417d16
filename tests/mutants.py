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
    ("stride left out of the decode", "codec.py", "+ s * xy - (s - 1) / 2) * spec.stride", "+ s * xy - (s - 1) / 2) * 8",
     "test_codec.py test_pipeline.py"),
    ("grid scale's offset left out", "codec.py", "+ s * xy - (s - 1) / 2) * spec.stride", "+ s * xy) * spec.stride", "test_codec.py"),
    ("a cell's classes read before its boxes", "codec.py", "raw[:, None, anchors * 5 :]", "raw[:, None, : spec.classes]", "test_codec.py"),
    ("size of YOLOv1 without its square", "codec.py", "anchors * wh.square()", "anchors * wh.abs()", "test_codec.py"),
    ("free offsets from the cell's corner", "codec.py", "centre = (cells + 0.5)", "centre = cells", "test_codec.py"),
    ("anchor order reversed", "codec.py", "torch.tensor(spec.anchors,", "torch.tensor(spec.anchors[::-1],",
     "test_codec.py test_assign.py test_pipeline.py"),
    ("x and y of the grid swapped", "codec.py", "torch.stack((columns, rows), dim=-1)",
     "torch.stack((rows, columns), dim=-1)", "test_codec.py test_pipeline.py"),
    ("pad not subtracted", "geometry.py", "clip((boxes - shift) / scale, self.image)",
     "clip(boxes / scale, self.image)", "test_geometry.py test_pipeline.py"),
    ("no-object weight halved", "training/loss.py", "torch.full_like(target, self.no_object)",
     "torch.full_like(target, self.no_object / 2)", "test_loss.py"),
    ("ignore rule upside down", "training/loss.py", "masked_fill(near & ~positive, 0.0)", "masked_fill(near & positive, 0.0)", "test_loss.py"),
    ("a crowd becomes a target", "training/assign.py", "index = (~targets.ignore)", "index = (targets.ignore == targets.ignore)",
     "test_assign.py"),
    ("neighbour on the wrong side", "training/assign.py", "((-1.0, inside[:, axis] < reach), (1.0,",
     "((1.0, inside[:, axis] < reach), (-1.0,", "test_assign.py"),
    ("EMA decay without its ramp", "training/ema.py", "min(self.decay, (1 + self.updates) / (10 + self.updates))",
     "self.decay", "test_training.py"),
    ("class offset by one", "postprocess.py", "return row[finite], score[finite], label[finite]",
     "return row[finite], score[finite], label[finite] + 1", "test_pipeline.py"),
    (">= for > in NMS", "nms.py", "_kernel(boxes64[:take], rank[:take], iou)",
     "_kernel(boxes64[:take], rank[:take], iou - 1e-9)", "test_nms.py"),
    ("NMS across classes", "nms.py", "labels[order].double() * span", "labels[order].double() * 0", "test_nms.py"),
    ("k-means keeps the worst start", "anchors.py", "best = max(runs,", "best = min(runs,", "test_anchors.py"),
    ("the seen part's start is not scaled", "data/mosaic.py", "[x1 - sx1 * x, y1 - sy1 * y] * 2", "[x1 - sx1, y1 - sy1] * 2",
     "test_transforms.py"),
    ("every box half a px to the right", "data/mosaic.py", "torch.addcmul(shift, boxes, scale)",
     "torch.addcmul(shift + 0.5, boxes, scale)", "test_augmentation.py"),
    ("the flipped boxes' x and y swapped", "data/transforms.py", "moved = torch.as_tensor(np.asarray(out[\"bboxes\"], np.float32).reshape(-1, 4))",
     "moved = torch.as_tensor(np.asarray(out[\"bboxes\"], np.float32).reshape(-1, 4))[:, [1, 0, 3, 2]]", "test_augmentation.py"),
    ("pad left on the boxes", "data/pictures.py", "letterbox.resized(sample.boxes)", "letterbox.apply(sample.boxes)",
     "test_augmentation.py"),
    ("pictures padded to the whole input", "inference.py", "self.step = 0 if network.fixed else", "self.step = 0 if True else",
     "test_predictor.py"),
    ("answers in the order of the sizes", "inference.py", "return [found[place] for place in range(len(letterboxes))]",
     "return list(found.values())", "test_predictor.py"),
    ("motion blur to one side", "data/transforms.py", "direction_range=(0.0, 0.0)", "direction_range=(-1.0, 1.0)", "test_augmentation.py"),
    ("both flips draw one number", "data/transforms.py", "zip(rng.random(2), self._flips", "zip(rng.random(1).repeat(2), self._flips", "test_augmentation.py"),
    ("a covered box stays", "data/mix.py", "visible_share(hidden, layer.boxes) >= min_visible", "visible_share(hidden, layer.boxes) >= 0",
     "test_augmentation.py"),
    ("a box under a hole stays", "data/transforms.py", "(visible_share(shown == 0, boxes) >= self._min_visible)",
     "(visible_share(shown == 0, boxes) >= 0)", "test_augmentation.py"),
    ("a picture shown again is the same picture again", "data/balance.py", "order[place] + times * len(weights)", "order[place]",
     "test_balance.py"),
    ("repeat factor without its root", "data/balance.py", "np.sqrt(t * len(samples) / np.maximum(1, images))",
     "(t * len(samples) / np.maximum(1, images))", "test_balance.py"),
    ("ticks not spread over the whole epoch", "data/balance.py", "* (total / weights.sum())", "* 1.0", "test_balance.py"),
    ("class weight of the wrong class", "training/parts.py", "logits.new_tensor(weights)[labels]", "logits.new_tensor(weights)[labels - 1]",
     "test_loss.py"),
    ("class weights shrink the divisor", "training/parts.py", "weights)[labels]).sum() if weights",
     "weights)[labels]).sum() / logits.new_tensor(weights)[labels].mean() if weights", "test_loss.py"),
    ("group norm over single channels", "models/conv.py", "channels // 16", "channels", "test_choices.py"),
    ("eps of the norm forgotten", "models/conv.py", "nn.BatchNorm2d(channels, eps)", "nn.BatchNorm2d(channels)", "test_choices.py"),
    ("dilation without its padding", "models/conv.py", "kernel // 2 * dilation", "kernel // 2", "test_choices.py"),
    ("a pool and a stride", "models/conv.py", "1 if pool else stride", "stride", "test_choices.py"),
    ("transposed convolution folded as a plain one", "models/detector.py", "bn, isinstance(conv, nn.ConvTranspose2d)", "bn, False",
     "test_choices.py"),
    ("receptive field of a transposed convolution", "models/summary.py", "math.ceil(module.kernel_size[0] / module.stride[0])",
     "math.floor(module.kernel_size[0])", "test_choices.py"),
    ("fan-in for fan-out", "models/detector.py", '"he_fan_in": come', '"he_fan_in": to', "test_choices.py"),
    ("excitation without its gate", "models/attention.py", 'channels, act="logistic"', 'channels, act="identity"', "test_choices.py"),
    ("CBAM: places by the sum", "models/attention.py", "x.mean(1, True)", "x.sum(1, True)", "test_choices.py"),
    ("ResNet cut a layer early", "models/backbones.py", '"layer2"), ("layer3",)', '"layer2", "layer3"), ()', "test_backbones.py"),
    ("GoogLeNet normalised like the others", "models/backbones.py", "mean=(0.5, 0.5, 0.5)", "mean=(0.485, 0.456, 0.406)",
     "test_backbones.py"),
    ("weights of the backbone left as drawn", "models/backbones.py", "weights[prefix + name] for", "own[name] for", "test_backbones.py"),
    ("of equal IoUs the first object", "evaluation/match.py", "np.lexsort((rivals.object,", "np.lexsort((-rivals.object,",
     "test_match.py"),
    ("a crowd can be taken once", "evaluation/match.py", "free = ((found_by[:, part] < 0) | crowd[part])", "free = (found_by[:, part] < 0)",
     "test_match.py"),
    ("ignored objects are chosen like others", "evaluation/match.py", "np.arange(n) + n * ~ignored[part]", "np.arange(n) + 0 * ~ignored[part]",
     "test_match.py"),
    ("a box of just the confidence is shown", "evaluation/curves.py", "side=\"right\")).astype", "side=\"left\")).astype",
     "test_ap.py"),
    ("a found object is missed in the confusion", "evaluation/curves.py", "left_objects[matching.match[0][right]] = False", "pass",
     "test_ap.py"),
    ("a mended box never takes an object", "evaluation/errors.py", "matching.score[before] >= matching.score[row]", "True",
     "test_errors.py"),
    ("objects of Cls and Loc boxes are missed", "evaluation/errors.py", "missed = lost & ~blamed", "missed = lost",
     "test_errors.py"),
    ("background: near another class's object", "evaluation/errors.py", "(BKG, np.maximum(own, other) <= NEAR", "(BKG, np.maximum(own, own) <= NEAR",
     "test_errors.py"),
    ("b - a upside down", "evaluation/compare.py", "second - first, np.nan", "first - second, np.nan",
     "test_compare.py"),
    ("a doubt beside every object", "evaluation/worst.py", "score >= DOUBT and not near_any[row]", "score >= DOUBT",
     "test_worst.py"),
    ("explain: a worse box drops a better one", "explain/trace.py", "rank[kept][None] < rank[:, None]", "rank[kept][None] > rank[:, None]",
     "test_explain.py"),
    ("explain: the formula of another code", "explain/formula.py", "− {number((reach - 1) / 2)}", "− {number(reach / 2)}", "test_explain.py"),
    ("explain: a step from the wrong anchor", "explain/formula.py", "number(spec.anchors[place.anchor][axis])} · {form", "number(spec.anchors[0][axis])} · {form",
     "test_explain.py"),
    ("explain: a shared prediction counts twice", "explain/truth.py", "taken[at] = True", "taken[at] = False", "test_explain.py"),
    ("explain: Grad-CAM of the neighbour's score", "explain/sight.py", "one.classes[at], spec)[label]", "one.classes[at], spec)[label - 1]",
     "test_explain.py"),
    ("names in a page are not escaped", "report/page.py", "autoescape=True", "autoescape=False",
     "test_report.py"),
    ("pictures without end in a page", "report/pictures.py", "if len(source) > self.left:", "if False:",
     "test_report.py"),
    ("objects and the rest weigh alike", "training/loss.py", ".masked_fill(positive, self.object)", "", "test_generations.py"),
    ("small boxes weigh less", "training/parts.py", "return 2 - area(target)", "return 1 + area(target)", "test_generations.py"),
    ("the pull to the anchors lasts one batch longer", "training/loss.py", "if seen < self.prior_images", "if seen <= self.prior_images",
     "test_generations.py"),
    ("the pull to the anchors on objects too", "training/loss.py", "[~positive]", "[positive | ~positive]",
     "test_generations.py"),
    ("an anchor of each level", "training/assign.py", "own = ((best >= 0) & (best < len(spec.anchors)))", "own = (best < len(spec.anchors))",
     "test_generations.py"),
    ("two objects in a cell of YOLOv1", "training/assign.py", "kept = _first((targets.image[index] * size[0] + row) * size[1] + column)",
     "kept = _first(index)", "test_generations.py"),
    ("the box with the lowest IoU is responsible", "training/assign.py", "overlap.argmax(1), distance", "overlap.argmin(1), distance",
     "test_generations.py"),
    ("anchors are counted per image", "training/loss.py", 'if self.divide_by == "positives" else images', 'if self.divide_by == "positives" else positives',
     "test_generations.py"),
    ("Soft-NMS: the overlap in place of what is left", "nms.py", "torch.where(overlap > iou, 1 - overlap, 1.0)",
     "torch.where(overlap > iou, overlap, 1.0)", "test_nms.py"),
    ("DIoU-NMS by plain IoU", "nms.py", 'boxes, "diou") <= iou', "boxes) <= iou", "test_nms.py"),
    ("fusion: coordinates not weighted", "nms.py", "sums[near] += weight * box\n        mass[near] += weight",
     "sums[near] += box\n        mass[near] += 1", "test_nms.py"),
    ("a mirrored view's boxes stay mirrored", "views.py", "boxes = mirrored(boxes, self.window[2] - self.window[0], axis=0)",
     "boxes = boxes", "test_views.py"),
    ("pieces at a seam are not joined", "views.py", "agree = (matched_iou(first, second) > limits.iou)",
     "agree = (matched_iou(first, second) > 2)", "test_views.py"),
    ("pieces count beside the whole", "views.py", "return ((share > COVERED) &", "return ((share > 2) &", "test_views.py"),
    ("what a border cuts counts as whole", "views.py", ".abs() < near) & inner", ".abs() < 0) & inner", "test_views.py"),
    ("digits are mirrored", "views.py", "(scale, mirror and mirrors) for scale, mirror in SCALES",
     "(scale, mirror) for scale, mirror in SCALES", "test_views.py"),
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
        for part in ("yolite", "configs", "data", "docs", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("generated", "__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        path = copy / "yolite" / file
        text = path.read_text()
        if text.count(true) < 1:
            raise SystemExit(f"{file} no longer holds {true!r}: mend tests/mutants.py")
        path.write_text(text.replace(true, mutant))
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n",
            "0",
            "-m",
            "not slow",
            *(f"tests/{t}" for t in tests.split()),
        ]
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
