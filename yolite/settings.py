"""From files, options and ``key=value`` words to a checked configuration.

Order, the later wins: the defaults (`yolite.config`), the model's YAML in configs/, ``--config FILE``, command-line
options, ``key=value`` words. An unknown key or a wrong type is an error that names the nearest valid key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from yolite.config import Config, DataConfig, Plain, to_plain
from yolite.errors import UserError, nearest
from yolite.files import read_yaml
from yolite.paths import descriptor


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Plain:
    """Return ``base`` with ``over`` laid on it, section by section; neither is changed.

    Raises:
        UserError: one has a value where the other has a section, which it would silently replace.
    """
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        if old is not None and isinstance(old, Mapping) != isinstance(value, Mapping):
            wrong = value if isinstance(old, Mapping) else old
            raise UserError(f"{key}: {wrong!r} is not a section with keys of its own")
        out[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def read_config_file(path: Path) -> Plain:
    """Read a config YAML and the one file it may ``include`` (beside it); its own values win."""
    plain = read_yaml(path)
    include = plain.pop("include", None)
    if include is None:
        return plain
    base = read_yaml(path.parent / str(include))
    if "include" in base:
        raise UserError(f"{path.parent / str(include)} includes another file: one level of include is the limit")
    return merge(base, plain)


def _valid_keys(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of the configuration."""
    for name, info in section.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _valid_keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _nearest_key(key: str) -> str:
    """Return a hint with the valid key that looks most like ``key`` (in full, or by its last part)."""
    valid = list(_valid_keys())
    last = key.rsplit(".", 1)[-1]
    leaves = {v.rsplit(".", 1)[-1]: v for v in reversed(valid)} | {v.split(".")[0]: v.split(".")[0] for v in valid}
    by_full, by_leaf = nearest(key, valid), nearest(last, leaves)
    if by_leaf:
        leaf = by_leaf.split("'")[1]
        by_leaf = f" (did you mean {leaves[leaf]!r}?)"
    return by_full or by_leaf if "." in key else by_leaf or by_full


def check_key(key: str, flag: str, others: Sequence[str] = ()) -> None:
    """Refuse a dotted key that names no setting.

    Raises:
        UserError: with the nearest key there is.
    """
    if key not in _valid_keys() and key not in others:
        raise UserError(f"{flag} {key}: unknown setting{_nearest_key(key)}")


def absolute_source(source: str) -> str:
    """Return ``data.source`` so that it means the same from another folder; names of what yolite ships stay."""
    is_name = source == DataConfig().source or not Path(source).exists()
    return source if is_name else str(Path(source).resolve())


def nest(key: str, value: Any) -> Plain:
    """Return a dotted key and its value as nested settings."""
    first, _, rest = key.partition(".")
    return {first: nest(rest, value) if rest else value}


def parse_words(words: Sequence[str]) -> Plain:
    """Read ``key=value`` words into nested plain data; values are read as YAML.

    Raises:
        UserError: a word without '=', or a value that is not YAML.
    """
    out: Plain = {}
    for word in words:
        key, sign, text = word.partition("=")
        if not sign or not key:
            raise UserError(f"{word!r} is not understood: settings are written key=value, e.g. train.lr=0.01")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"{key}: {text!r} cannot be read as a value") from None
        out = merge(out, nest(key, value))
    return out


_WANTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "a section with keys of its own",
}


def _sentence(error: ValidationError) -> str:
    """Turn pydantic's first complaint into one plain sentence."""
    # of a union such as "auto or a number" the branch with a plain word is the one to name
    found = error.errors()
    same = [e for e in found if e["loc"][:2] == found[0]["loc"][:2]]
    first = next((e for e in same if e["type"] != "literal_error"), found[0])
    where = [str(part) for part in first["loc"]]
    # pydantic appends the branch of a union ("int", "literal['auto']"): not part of the key
    valid = set(_valid_keys())
    key = ".".join(where)
    while key not in valid and "." in key and first["type"] != "extra_forbidden":
        key = key.rsplit(".", 1)[0]
    if first["type"] == "extra_forbidden":
        inside = first["input"]
        while isinstance(inside, Mapping) and inside:  # of an unknown section the whole key tells what was meant
            part, inside = next(iter(inside.items()))
            key = f"{key}.{part}"
        return f"unknown setting {key!r}{_nearest_key(key)}"
    value = first["input"]
    wanted = _WANTED.get(first["type"])
    if wanted:
        return f"{key}: {value!r} is not {wanted}"
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
    return f"{key}: {message}" if message.startswith(repr(value)) else f"{key}: {value!r} is refused: {message}"


def make_config(*layers: Mapping[str, Any]) -> Config:
    """Lay plain settings over the defaults, the later ones on top, and check them.

    Raises:
        UserError: an unknown key or a value of the wrong type or range.
    """
    plain: Plain = {}
    for layer in layers:
        plain = merge(plain, layer)
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise UserError(_sentence(error)) from None


def load_config(
    model: str | None = None,
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    words: Sequence[str] = (),
) -> Config:
    """Build the configuration of a command.

    Args:
        model: A name in configs/ or a path to a YAML; None: what ``file`` names, else yolite-n.
        file: A YAML with any of the settings.
        options: Plain nested settings from command-line options.
        words: ``key=value`` words.

    Raises:
        UserError: anything wrong with one of them.
    """
    from_file = read_config_file(file) if file else {}
    from_words = parse_words(words)
    named = from_words.get("model", {})
    if not isinstance(named, Mapping):
        raise UserError("model=… is written --model; model.KEY=… changes one of its settings")
    stated = from_file.get("model", {})
    if not isinstance(stated, Mapping):
        raise UserError(f"{file}: model: {stated!r} is not a section: write model: {{name: {stated}}}, or give --model")
    base: Plain = {}
    if model or not stated.get("backbone"):
        name = model or stated.get("name") or "yolite-n"
        base = read_config_file(descriptor(str(name), "configs", "model"))
        own = base.get("model", {}).get("name")
        if model and (stated.get("backbone") or stated.get("name", own) != own):
            other = stated.get("name", "a network of its own")
            raise UserError(f"--model {model}, but {file} describes {other}: leave --model out, or take another file")
    return make_config(base, from_file, options or {}, from_words)


def replace_setting(config: Config, dotted: str, value: Any) -> Config:
    """Return the configuration with one setting changed (used where an ``auto`` is decided)."""
    return make_config(to_plain(config), nest(dotted, value))
