"""The optional packages of export: imported here, each with a sentence where it is not installed."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from yolite.errors import UserError


def need_onnx() -> tuple[Any, Any]:
    """Return the modules onnx and onnxruntime.

    Raises:
        UserError: they are not installed.
    """
    try:
        onnx, runtime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
        importlib.import_module("onnxscript")  # torch.onnx asks for it, late and in words of its own
    except ImportError as error:
        raise UserError(f"ONNX files need the package {error.name}: pip install 'yolite[onnx]'") from None
    runtime.set_default_logger_severity(3)
    runtime.disable_telemetry_events()  # some builds for Windows send them
    return onnx, runtime


def need_openvino() -> Any:
    """Return the module openvino.

    Its import sends an event to a server unless the user has declined; without openvino_telemetry it does not, and
    does not need it.

    Raises:
        UserError: it is not installed.
    """
    sender = "openvino_telemetry"
    if "openvino" in sys.modules or sender in sys.modules:
        blocked = False
    else:
        sys.modules[sender], blocked = None, True  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    except ImportError:
        raise UserError("OpenVINO files need the package openvino: pip install 'yolite[openvino]'") from None
    finally:
        if blocked:
            del sys.modules[sender]


@functools.cache
def openvino_core() -> Any:
    """Return the one openvino.Core of this process.

    Each core gives the main thread a stack of its own for signal handlers and takes it away when it goes; of two that
    go in the order in which they came, the second puts a stack back that is gone, and the next Ctrl-C or ended child
    process is a segmentation fault.

    Raises:
        UserError: openvino is not installed.
    """
    return need_openvino().Core()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' remarks on their own workings from the user; what fails still raises."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
