"""What several verbs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yolite.config import Config, parse_imgsz
from yolite.console import Console
from yolite.errors import UserError
from yolite.settings import load_config, make_config, merge, parse_words
from yolite.structures import Size


def settings_of_use(words: Sequence[str], useful: Sequence[str], verb: str, why: str) -> dict[str, Any]:
    """Read ``key=value`` words for a command that takes only some of the settings.

    Args:
        words: As typed.
        useful: Settings, or whole sections, that the command has a use for.
        verb: The command, for the sentence.
        why: Where the others come from, for the sentence.

    Returns:
        The settings, nested.

    Raises:
        UserError: a setting that does not exist, or that would be without effect.
    """
    load_config(words=words)  # unknown keys and wrong types are named here
    for word in words:
        key = word.partition("=")[0]
        if not any(key == name or key.startswith(f"{name}.") for name in useful):
            raise UserError(f"{verb} has no use for {key}: {why}")
    return parse_words(words)


def read_imgsz(text: Any) -> Size | None:
    """Read --imgsz for commands that take no configuration.

    Raises:
        UserError: not a size, or not a multiple of 32.
    """
    if text is None:
        return None
    try:
        return parse_imgsz(text)
    except ValueError as error:
        raise UserError(f"imgsz: {error}") from None


def config_of_weights(stored: Mapping[str, Any], options: Mapping[str, Any], settings: Mapping[str, Any]) -> Config:
    """Return the settings that weights were trained with, with those over them that were given now."""
    typed = settings.get("data", {})
    if "data" in options or (isinstance(typed, Mapping) and "source" in typed):
        # other data: none of the lists of the data it was trained on
        stored = merge(stored, {"data": {"train": None, "val": None, "test": None}})
    return make_config(stored, {"device": "auto"}, options, settings)


def check_classes(names: list[str], other: list[str], weights: str, data: str, console: Console) -> None:
    """Refuse weights of another class count than the data; warn where only names differ.

    Raises:
        UserError: the numbers of classes differ.
    """
    if len(names) != len(other):
        raise UserError(
            f"{weights} was trained for {len(names)} classes ({', '.join(names[:4])} ...), but {data} has "
            f"{len(other)} ({', '.join(other[:4])} ...): give the data it belongs to, or train on this one"
        )
    if names != other:
        pairs = [f"{a} / {b}" for a, b in zip(names, other, strict=True) if a != b]
        console.warn(f"class names of weights and data differ: {', '.join(pairs[:5])}")
