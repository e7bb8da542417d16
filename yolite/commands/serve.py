"""``yolite serve``."""

from __future__ import annotations

import importlib
import socket
from pathlib import Path
from typing import Any

from yolite.commands.common import read_imgsz
from yolite.console import Console
from yolite.defaults import IOU, MAX_DET
from yolite.errors import UserError
from yolite.inference import Inference
from yolite.weights import choose_device, open_model


def serve_weights(
    weights: str, host: str, port: int, imgsz: Any, device: str, half: bool, batch: int, concurrency: int,
    megabytes: float, megapixels: float, seconds: float,
) -> None:  # fmt: skip
    """Answer requests until the process is told to stop.

    Raises:
        UserError: the extra is not installed, the weights cannot be read, or the address is taken.
    """
    for name, package in (("fastapi", "fastapi"), ("uvicorn", "uvicorn"), ("python_multipart", "python-multipart")):
        try:
            importlib.import_module(name)
        except ImportError:
            raise UserError(f"serve needs the package {package}: pip install 'yolite[serve]'") from None
    import uvicorn

    from yolite.serving.app import Serving, make_app
    from yolite.serving.batcher import Batcher
    from yolite.serving.guard import Impatient, Limits

    size = read_imgsz(imgsz)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--host {host} --port {port} cannot be listened on ({reason}): choose another") from None
    model = open_model(weights, choose_device(weights, device), size, half)
    batcher = Batcher(Inference(model.network, model.preprocess), IOU, MAX_DET, batch)
    limits = Limits(concurrency, int(megabytes * 2**20), megapixels * 1e6, seconds)
    program = make_app(Serving(batcher, model.names, str(Path(weights)), limits))
    http = type("Http", (Impatient,), {"patience": seconds})
    config = uvicorn.Config(
        program, http=http, log_level="warning", access_log=False, server_header=False, lifespan="off",
        limit_concurrency=8 * concurrency + 32, timeout_graceful_shutdown=5,
    )  # fmt: skip
    address = listening.getsockname()
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    Console().say(f"{weights} answers on http://{shown}:{address[1]} (Ctrl-C ends it)")
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        batcher.close()
