"""The configs of YOLOv1, v2 and v3 against Darknet's files: parameters layer for layer, raw maps under equal weights.

    python benchmarks/darknet_configs.py --cfg ../shared/data/darknet/cfg

The file is read by `yolite import`'s reader, weights and batch norm's statistics are drawn at random, the config's
network gets the same, and both answer one picture. Writes benchmarks/results/darknet_configs.json; exit 1 if a layer
has another number of parameters or a map differs at all.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import nn

from yolite.build import build_detector, placeholder_anchors
from yolite.commands.darknet import configure
from yolite.darknet.cfg import read_cfg
from yolite.darknet.network import read_network
from yolite.models.detector import Detector
from yolite.settings import load_config

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "darknet_configs.json"
FILES = {"yolov1": "yolov1-yolo", "yolov1-tiny": "yolov1-tiny-yolo"} | {
    name: name for name in ("yolov2", "yolov2-tiny", "yolov3", "yolov3-tiny")
}


def counts(model: Detector) -> list[int]:
    """Return the learned numbers of each layer that has any."""
    return [n for layer in model.graph.layers if (n := sum(p.numel() for p in layer.parameters()))]


def draw(model: Detector) -> None:
    """Draw biases and batch norm's weights and statistics, so that none of them is 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                found = (module.weight, 0.8, 1.2), (module.bias, -0.2, 0.2)
                found += (module.running_mean, -0.2, 0.2), (module.running_var, 0.5, 1.5)
                for values, low, high in found:
                    assert values is not None
                    values.uniform_(low, high, generator=generator)


def compare(name: str, file: Path) -> dict[str, object]:
    """Return one row of the table."""
    network = read_network(read_cfg(file))
    config = configure(network, file.stem)
    imported = build_detector(config, network.classes, placeholder_anchors(config.model)).eval()
    draw(imported)
    own_config = load_config(name)
    own = build_detector(own_config, network.classes, placeholder_anchors(own_config.model)).eval()
    same = counts(own) == counts(imported)
    row: dict[str, object] = {"config": name, "file": file.name, "parameters": sum(counts(own)), "same_layers": same}
    own.load_state_dict(dict(zip(own.state_dict(), imported.state_dict().values(), strict=True)))
    picture = torch.rand(1, 3, *(own.fixed_size or (160, 224)), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        pairs = list(zip(own(picture), imported(picture), strict=True))
    row["largest_difference"] = max(float((a - b).abs().max()) for a, b in pairs)
    row["largest_number"] = max(float(b.abs().max()) for _, b in pairs)
    return row


def main() -> int:
    """Compare all six."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cfg", type=Path, required=True, help="folder of Darknet's cfg files")
    folder = parser.parse_args().cfg
    rows = []
    for name, file in FILES.items():
        rows.append(compare(name, folder / f"{file}.cfg"))
        print(*(f"{key} {value}" for key, value in rows[-1].items()), sep="  ", flush=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    return int(any(not row["same_layers"] or row["largest_difference"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
