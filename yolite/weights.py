"""What ``--weights`` may name, opened ready to run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from yolite.checkpoint import find_weights, load_checkpoint, restore_detector, restore_preprocess
from yolite.devices import build_device
from yolite.errors import UserError
from yolite.export.runtimes import RUNTIMES, open_exported
from yolite.inference import Model, Network, TorchNetwork
from yolite.processes import ALONE, Processes
from yolite.structures import Size


def choose_device(weights: str | Path, name: str, processes: Processes = ALONE) -> torch.device:
    """Return the device that ``name`` means for these weights: ``auto`` is the processor where a runtime needs asking.

    Raises:
        UserError: no such device here.
    """
    asks = Path(weights).suffix in (".onnx", ".xml") and not Path(weights).is_dir()
    return build_device("cpu" if name == "auto" and asks else name, processes)


def check_imgsz(weights: str | Path, network: Network, own: Size, asked: Size) -> None:
    """Refuse another input size (H, W) than a network's own where it takes no other.

    Raises:
        UserError: it takes its own alone.
    """
    if network.fixed and asked != own:
        raise UserError(
            f"imgsz {asked[0]}x{asked[1]}: {weights} takes {own[0]}x{own[1]} alone, as it has fully connected layers: "
            "leave imgsz out"
        )


def open_model(weights: str | Path, device: torch.device, imgsz: Size | None = None, half: bool = False) -> Model:
    """Open a checkpoint, a run folder's best one, or an exported file.

    Args:
        weights: File or run folder.
        device: Where to run.
        imgsz: Input (H, W) in px, multiples of the coarsest stride; None takes what it was trained at.
        half: Compute a checkpoint in 16 bits.

    Raises:
        UserError: it cannot be read, or cannot be run at that size.
    """
    network: Network
    if Path(weights).suffix in RUNTIMES and not Path(weights).is_dir():
        if half:
            raise UserError(f"{weights} computes as it was exported: give half precision with a checkpoint alone")
        content, network = open_exported(Path(weights), device)
    else:
        content = load_checkpoint(find_weights(weights))
        network = TorchNetwork(restore_detector(content), device, alone=device.type == "cpu", half=half)
    stride = max(spec.stride for spec in network.specs)
    if imgsz and any(side < 1 or side % stride for side in imgsz):
        raise UserError(f"imgsz {imgsz[0]}x{imgsz[1]}: {weights} needs multiples of {stride}: give such a size")
    preprocess = restore_preprocess(content)
    check_imgsz(weights, network, preprocess.size, imgsz or preprocess.size)
    hflip = (content["config"].get("augment") or {}).get("hflip")
    mirrors = hflip is None or hflip == "auto" or hflip > 0  # a network from elsewhere does not say
    preprocess = replace(preprocess, size=imgsz) if imgsz else preprocess
    return Model(network, preprocess, content["names"], content["config"], mirrors)
