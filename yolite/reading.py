"""The data set that a config points to: opened, read, looked into; what is found is said in one line a role."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolite.config import Config, DataConfig
from yolite.console import Console
from yolite.data.dataset import ROLES, DataSet, Split, open_dataset
from yolite.data.digits import ensure_digits, folder_name
from yolite.data.inspect import Store, examine, inspect
from yolite.data.look import Look
from yolite.data.problems import summarise
from yolite.errors import UserError
from yolite.files import read_yaml
from yolite.paths import descriptor, generated


def build_dataset(config: Config, console: Console) -> DataSet:
    """Find the data set that ``config.data`` points to; the built-in one is made first if it is not there.

    Raises:
        UserError: it does not exist or is not understood.
    """
    data, built_in = config.data, DataConfig().source
    overrides: dict[str, str] = {role: value for role in ROLES if (value := getattr(data, role)) is not None}
    path = Path(data.source)
    if data.source == built_in:
        if path.exists():
            console.say(f"data: the built-in {built_in}; what is called so here is ./{built_in}")
        path = descriptor(data.source, "data", "data set")
    elif path.is_dir():
        inside = [path / name for name in ("data.yaml", "data.yml", "dataset.yaml") if (path / name).is_file()]
        path = inside[0] if inside else path
    elif not path.exists() and "/" not in data.source and not path.suffix:
        path = descriptor(data.source, "data", "data set")
    if path.suffix not in (".yaml", ".yml"):
        return open_dataset(path, overrides)
    plain = read_yaml(path) if path.is_file() else {}
    if plain.get("generate") == "digits":
        seed = plain.get("seed", 0)
        if not isinstance(seed, int) or seed < 0:
            raise UserError(f"{path}: seed {seed!r} is no whole number from 0: mend it")
        with console.track("making the built-in digits data set") as progress:
            path = ensure_digits(generated(folder_name(seed)), seed, progress)
        plain = read_yaml(path)
    elif not path.is_file():
        raise UserError(f"data {path} does not exist: check the path")
    return open_dataset(path, overrides, plain)


def load_split(
    dataset: DataSet, role: str, console: Console, need_images: bool = True, need_sizes: bool = True
) -> Split:
    """Read a role's samples and say in one line what was found wrong.

    Raises:
        UserError: nothing plays this role, or nothing of it can be read.
    """
    split = dataset.load(role, need_images, need_sizes)
    _say(split, console)
    return split


def load_splits(dataset: DataSet, roles: Sequence[str], console: Console) -> list[Split]:
    """Read roles as `load_split` does, look into every image, and leave out what cannot be decoded.

    Raises:
        UserError: nothing plays one of the roles, or nothing of it can be read.
    """
    splits = look_into(dataset, [dataset.load(role) for role in roles], console)
    for split in splits:
        split.require_images()
        _say(split, console)
    return splits


def _kept_as(dataset: DataSet) -> str:
    """Return the path by which what was found of a data set is kept."""
    return str(Path(dataset.where).absolute())


def looks_of(dataset: DataSet, split: Split, console: Console) -> list[Look]:
    """Return the look of each picture of a split, and say where it is kept; the split stays as it is."""
    with console.track("looking into the images") as progress:
        looks, line = inspect([Path(str(s.path)) for s in split.samples], Store(_kept_as(dataset)), progress)
    console.say(line)
    return looks


def look_into(dataset: DataSet, splits: Sequence[Split], console: Console) -> list[Split]:
    """Look into every image of these splits, and say where it is kept what was found."""
    if not any(sample.path for split in splits for sample in split.samples):
        return list(splits)
    with console.track("looking into the images") as progress:
        examined, line = examine(splits, _kept_as(dataset), progress)
    console.say(line)
    return examined


def _say(split: Split, console: Console) -> None:
    """Say in one line what was found, and in one what is left."""
    if found := summarise(split.problems):
        say = console.say if all(problem.note for problem in split.problems) else console.warn
        say(f"{split.role}: {found}; `yolite check` names each file, line and value")
    console.say(
        f"{split.role}: {len(split.samples)} images, {split.boxes} boxes, {len(split.names)} classes from {split.where}"
    )
