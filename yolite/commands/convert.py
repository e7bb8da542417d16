"""``yolite convert``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from yolite.commands.common import settings_of_use
from yolite.config import Config
from yolite.console import Console
from yolite.data.convert import Format, Part, check_out, make_parts, write_dataset
from yolite.data.dataset import ROLES, DataSet, Split
from yolite.data.divide import check_share, divide
from yolite.data.readers.voc import list_names
from yolite.errors import UserError
from yolite.reading import build_dataset, load_split, looks_of
from yolite.settings import load_config


def convert_data(
    options: Mapping[str, Any], words: Sequence[str], to: str, out: Path, link: bool, val_share: float | None
) -> None:
    """Write every role of a data set in another format; with a ``val_share`` divide its train into train and val.

    Raises:
        UserError: no data, an unknown format, or an ``out`` that cannot be written.
    """
    console = Console()
    formats: dict[str, Format] = {name: name for name in get_args(Format)}
    if to not in formats:
        raise UserError(f"--to {to!r} is not known: give {', '.join(formats)}")
    roles = [f"data.{role}" for role in ROLES]
    settings_of_use(words, ["data.source", *roles], "convert", f"only {', '.join(roles)} can be chosen")
    if val_share is not None:
        check_share(val_share)
    check_out(out)
    config = load_config(None, None, options, words)
    dataset = build_dataset(config, console)
    splits = read_roles(dataset, config, console)
    if val_share is not None:
        splits = hold_out(splits, dataset, val_share, console)
    parts = make_parts(splits, dataset.kind, formats[to])
    with console.track("writing") as progress:
        write_dataset(parts, formats[to], out, link, progress, dataset.searched)
    for part in parts:
        report(part, formats[to], console)
    safe = dataset.mirror_safe or to != "voc"
    if not safe:
        console.warn("VOC cannot hold mirror_safe: false, by which training does without flips: give augment.hflip=0")
    command = f"yolite train --data {shlex.quote(str(out))}{'' if safe else ' augment.hflip=0'}"
    missing = [role for role in ("train", "val") if not any(role in part.roles for part in parts)]
    console.say(f"{out} has nothing for {' and '.join(missing)}" if missing else f"train on it: {command}")


def read_roles(dataset: DataSet, config: Config, console: Console) -> list[tuple[list[str], Split]]:
    """Read what plays each role of a data set; what plays several is read once.

    Raises:
        UserError: a role that cannot be read, or none at all.
    """
    lists = list_names(dataset.root / "ImageSets" / "Main") if dataset.kind == "voc" else []
    groups: dict[str, list[str]] = {}
    for role, entry in dataset.entries.items():
        # a VOC root has no description: of train, val and test it has those whose lists are there
        if dataset.kind != "voc" or getattr(config.data, role) or entry in lists:
            groups.setdefault(repr(entry), []).append(role)
    if not groups:
        raise UserError(
            f"{dataset.where} has no list train, val or test: choose one with data.ROLE=NAME, of {', '.join(lists)}"
        )
    used = [str(dataset.entries[group[0]]).removesuffix(".txt") for group in groups.values()]
    if unused := [name for name in lists if name not in used]:
        shown = ", ".join(unused[:3]) + (" ..." if len(unused) > 3 else "")
        console.warn(f"lists that play no role are left out: {len(unused)} ({shown}); data.ROLE=NAME chooses others")
    return [(group, load_split(dataset, group[0], console)) for group in groups.values()]


def hold_out(
    splits: Sequence[tuple[list[str], Split]], dataset: DataSet, share: float, console: Console
) -> list[tuple[list[str], Split]]:
    """Divide what plays train into train and val.

    Raises:
        UserError: nothing plays train, val has pictures of its own, or it cannot be divided so.
    """
    whole = next((split for roles, split in splits if "train" in roles), None)
    if whole is None:
        raise UserError(f"{dataset.where} has nothing for train: say what is to be divided with data.train=NAME")
    others = [(roles, split) for roles, split in splits if "train" not in roles]
    if any("val" in roles for roles, _ in others):
        raise UserError(f"{dataset.where} has pictures for val already: leave --val-share out")
    train, val = divide(whole, looks_of(dataset, whole, console), share)
    seen = {label for sample in val.samples for label in sample.labels[~sample.ignore].tolist()}
    if unseen := [name for label, name in enumerate(train.names) if label not in seen]:
        names = ", ".join(unseen[:8]) + (" ..." if len(unseen) > 8 else "")
        console.warn(f"val shows no object of {names}: there are too few of them, so nothing judges them")
    return [(["train"], train), (["val"], val), *others]


def report(part: Part, to: Format, console: Console) -> None:
    """Say what was written for a role, and what of it the format cannot hold."""
    lost = [f"{count} {what}" for what, count in part.remarks.items()]
    if unread := part.split.unread:
        keys = ", ".join(f"{key} x {count}" for key, count in unread.most_common(8))
        lost.append(f"not boxes, so not carried over: {keys}{' ...' if len(unread) > 8 else ''}")
    read = part.split.boxes
    boxes = f"{part.boxes} boxes" if part.boxes == read else f"{part.boxes} of {read} boxes"
    console.say(f"{' = '.join(part.roles)}: {len(part.samples)} images, {boxes} as {to}" + "".join(
        f"; {text}" for text in lost))  # fmt: skip
