"""yolite: a YOLO you can read, trust, and train on the machine you have.

Importing this package stays cheap on purpose: torch is imported only when something that computes is asked
for, so that ``yolite --help`` answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolite.predictor import Predictor

__version__ = "0.1.0"

__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use (PEP 562)."""
    if name == "Predictor":
        from yolite.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'yolite' has no attribute {name!r}")
