"""OpenCV's own reading of a Darknet model; run by darknet_parity.py in an environment with OpenCV 4.

    PYTHON darknet_opencv.py CFG WEIGHTS IMAGES.npy OUT.npz [--boxes CONF IOU]

IMAGES.npy holds [N, 3, H, W] uint8 network input (RGB). Without --boxes OUT.npz holds, for the first image, the raw map
of each decoder's convolution and what the decoder makes of it (rows of cx, cy, w, h as shares of the input, objectness
and scores); with it, the boxes after NMS of all images. Knows nothing of yolite.
"""

import argparse
import re
from pathlib import Path

import cv2
import numpy as np


def boxes(net: "cv2.dnn.Net", size: tuple[int, int], conf: float, iou: float) -> np.ndarray:
    """Return rows [x1, y1, x2, y2, score, label], input px: the best class of each box, NMS within each class."""
    rows = np.concatenate([out.reshape(-1, out.shape[-1]) for out in net.forward(net.getUnconnectedOutLayersNames())])
    scores, labels = rows[:, 5:].max(1), rows[:, 5:].argmax(1)
    keep = scores > conf
    rows, scores, labels = rows[keep].astype(np.float64), scores[keep], labels[keep]
    height, width = size
    corner = (rows[:, :2] - rows[:, 2:4] / 2) * [width, height]
    sides = rows[:, 2:4] * [width, height]
    found = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        kept = cv2.dnn.NMSBoxes(np.hstack((corner[own], sides[own])).tolist(), scores[own].tolist(), conf, iou)
        found += [own[i] for i in np.asarray(kept).ravel()]
    best = sorted(found, key=lambda i: -scores[i])
    return np.hstack((corner[best], corner[best] + sides[best], scores[best, None], labels[best, None]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cfg", "weights", "images", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--boxes", type=float, nargs=2, metavar=("CONF", "IOU"))
    given = parser.parse_args()
    net = cv2.dnn.readNetFromDarknet(str(given.cfg), str(given.weights))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.enableWinograd(False)
    images = np.load(given.images)
    # OpenCV names a layer by its kind and its number in the file, and permutes a map before it decodes it
    decoders = [int(m[1]) for name in net.getLayerNames() if (m := re.fullmatch(r"permute_(\d+)", name))]
    out = {"opencv": np.array(cv2.__version__)}
    for number, image in enumerate(images if given.boxes else images[:1]):
        net.setInput(cv2.dnn.blobFromImage(np.ascontiguousarray(image.transpose(1, 2, 0)), 1 / 255))
        if given.boxes:
            out[str(number)] = boxes(net, image.shape[1:], *given.boxes)
        else:
            names = [f"conv_{n - 1}" for n in decoders], net.getUnconnectedOutLayersNames()
            values = net.forward([*names[0], *names[1]])
            out |= {f"raw{n - 1}": value for n, value in zip(decoders, values, strict=False)}
            out |= {f"rows{n - 1}": value for n, value in zip(decoders, values[len(decoders) :], strict=True)}
    np.savez(given.out, **out)


if __name__ == "__main__":
    main()
