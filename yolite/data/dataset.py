"""From what ``--data`` points to, to the samples of a role (train, val or test)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from yolite.data.problems import Problem
from yolite.data.readers import coco, voc, yolo
from yolite.data.readers.folders import searched
from yolite.errors import UserError
from yolite.files import read_names
from yolite.structures import Sample

Role = Literal["train", "val", "test"]
ROLES: tuple[Role, ...] = ("train", "val", "test")
_FOLDER_NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train", "train2017", "training"),
    "val": ("val", "valid", "val2017", "validation"),
    "test": ("test", "test2017", "testing"),
}
_DIVIDE = ", or divide train (`yolite convert --val-share 0.2`)"


@dataclass(frozen=True)
class Split:
    """The samples of one role.

    Attributes:
        role: train, val or test.
        samples: What was read.
        names: Class names; labels index them.
        category_ids: The data set's own id of each class (COCO), for results files.
        problems: Everything that was found wrong on the way.
        where: What was read, for people.
        mirror_safe: Whether an object's mirror image is an object of the same class.
        unread: What the files hold besides boxes, by key, and how often.
    """

    role: str
    samples: list[Sample]
    names: list[str]
    category_ids: list[int]
    problems: list[Problem]
    where: str
    mirror_safe: bool = True
    unread: Counter[str] = field(default_factory=Counter)

    @property
    def boxes(self) -> int:
        """Number of boxes."""
        return sum(len(sample.boxes) for sample in self.samples)

    def require_images(self) -> None:
        """Refuse a role of which no image is left.

        Raises:
            UserError: there is none.
        """
        if not self.samples:
            left_out = next((p for p in self.problems if p.action == "image left out"), None)
            reason = f" (first: {left_out})" if left_out else ""
            raise UserError(f"{self.where}: no image of the role {self.role!r} can be read{reason}")


@dataclass(frozen=True)
class DataSet:
    """A data set whose files have been found but not read.

    Attributes:
        kind: Which reader it takes.
        root: Folder that relative entries start from.
        names: Class names.
        entries: What plays each role: paths (yolo), {images, annotations} (coco) or list names (voc).
        where: What was pointed to.
        mirror_safe: See `Split`.
    """

    kind: Literal["yolo", "coco", "voc"]
    root: Path
    names: list[str]
    entries: dict[str, Any]
    where: str
    mirror_safe: bool = True

    @property
    def roles(self) -> list[str]:
        """The roles that something plays: lists of a VOC root that are there; of a COCO json itself only the first."""
        if self.kind == "voc":
            lists = self.root / "ImageSets" / "Main"
            there = [r for r in self.entries if self.entries[r] != r or (lists / f"{r}.txt").is_file()]
            return there or list(self.entries)
        return list(self.entries)[: 1 if self.plays_any_role else None]

    @property
    def plays_any_role(self) -> bool:
        """Whether this is one COCO json that plays whichever role is asked for."""
        return Path(self.where).suffix == ".json" and len(set(self.entries.values())) == 1

    def load(self, role: str, need_images: bool = True, need_sizes: bool = True) -> Split:
        """Read the samples of a role as `read` does.

        Raises:
            UserError: nothing plays this role, or what does cannot be read at all, or no image of it.
        """
        split = self.read(role, need_images, need_sizes)
        split.require_images()
        return split

    def read(self, role: str, need_images: bool = True, need_sizes: bool = True) -> Split:
        """Read the samples of a role; a COCO json can be read without its images, and then without their sizes.

        Raises:
            UserError: nothing plays this role, or what does cannot be read at all.
        """
        if role not in ROLES:
            raise UserError(f"split {role!r} is no role: give train, val or test")
        entry = self.entries.get(role)
        if entry is None:
            there = ", ".join(sorted(self.entries)) or "none"
            raise UserError(
                f"{self.where} has nothing for the role {role!r} (it has: {there}): say what plays it "
                f"with data.{role}=NAME{_DIVIDE if role == 'val' and 'train' in self.entries else ''}"
            )
        problems: list[Problem] = []
        unread: Counter[str] = Counter()
        ids = list(range(1, len(self.names) + 1))
        if self.kind == "voc":
            samples = voc.read_voc(self.root, str(entry), self.names, problems, unread)
        elif self.kind == "coco":
            file, images = _coco_entry(self.root, entry, need_images)
            samples, ids = coco.read_coco(file, images, self.names, problems, unread, need_sizes)
        else:
            others = [path for other in self.entries if other != role for path in self._paths(other)]
            samples = yolo.read_yolo(self._paths(role), len(self.names), problems, others)
        return Split(role, samples, self.names, ids, problems,
                     f"{self.where} [{_shown(entry)}]", self.mirror_safe, unread)  # fmt: skip

    @property
    def searched(self) -> list[Path]:
        """The folders that are searched through for images and labels: what is put there becomes part of the set."""
        return searched([path for role in self.entries for path in self._paths(role)]) if self.kind == "yolo" else []

    def _paths(self, role: str) -> list[Path]:
        """Return the folders and lists of a role of a YOLO set."""
        entry = self.entries[role]
        return [self.root / str(e) for e in (entry if isinstance(entry, list) else [entry])]


def _shown(entry: Any) -> str:
    """Return a role's entry for people."""
    return str(entry.get("annotations", entry)) if isinstance(entry, Mapping) else str(entry)


def _coco_entry(root: Path, entry: Any, need_images: bool) -> tuple[Path, Path | None]:
    """Return the json and the image folder of a COCO role."""
    if isinstance(entry, Mapping):
        if "annotations" not in entry:
            raise UserError(f"a COCO role needs annotations: FILE.json (and images: DIR), got {dict(entry)}")
        file = root / str(entry["annotations"])
        images = root / str(entry["images"]) if "images" in entry else file.parent
    else:
        file = root / str(entry)
        images = file.parent / "images" if (file.parent / "images").is_dir() else file.parent
    return file, images if need_images else None


def _require_words(value: Any, what: str, where: Path) -> None:
    """Refuse what is nested where a word is due: by anchors a few lines of YAML can stand for more than fits in memory.

    Raises:
        UserError: a list or mapping.
    """
    for word in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]:
        if isinstance(word, (list, Mapping)):
            raise UserError(f"{where}: {what} holds a list or mapping where a word is due: mend it")


def _names(value: Any, count: Any, where: Path) -> list[str]:
    """Read the ``names`` of a YAML, a list or a mapping from 0 on, and hold them against its ``nc``.

    Raises:
        UserError: they are no names, not numbered 0, 1, 2 ..., or not ``nc`` in number.
    """
    _require_words(value, "names", where)
    names = value
    if isinstance(value, Mapping):
        # not int(key): it would make 0 of 0.5 and of false
        keys = [int(key) if str(key).isdecimal() and not isinstance(key, bool) else key for key in value]
        if sorted(map(str, keys)) != sorted(map(str, range(len(keys)))):
            raise UserError(f"{where}: names must be numbered 0, 1, 2 ... without gaps, each once")
        ordered = dict(zip(keys, value.values(), strict=True))
        names = [ordered[number] for number in range(len(ordered))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{where}: names is missing or empty: list the class names")
    for number, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            read = f"YAML reads the name of class {number} as {_yaml_word(name)}"
            raise UserError(f"{where}: {read}, which is no text: put it in quotes")
    if count is not None and (isinstance(count, bool) or count != len(names)):
        raise UserError(f"{where}: nc is {_yaml_word(count)}, but there are {len(names)} names: mend one of them")
    return [str(name) for name in names]


def _mirror_safe(value: Any, where: Path) -> bool:
    """Read the ``mirror_safe`` of a YAML.

    Raises:
        UserError: it is neither true nor false.
    """
    if not isinstance(value, bool):
        raise UserError(f"{where}: mirror_safe is {_yaml_word(value)}: give true or false")
    return value


def _yaml_word(value: Any) -> str:
    """Return a value of a YAML as people would write it there."""
    return str(value).lower() if isinstance(value, bool) else "nothing" if value is None else repr(value)[:60]


def _from_yaml(file: Path, plain: Mapping[str, Any], overrides: Mapping[str, str]) -> DataSet:
    """Describe a data set from its YAML (see the command contract)."""
    for key in ("path", *ROLES):
        _require_words(plain.get(key), key, file)
    if isinstance(plain.get("path"), (list, Mapping)):
        raise UserError(f"{file}: path is no path: give one folder")
    root = file.parent / str(plain.get("path") or ".")
    entries: dict[str, Any] = {role: plain[role] for role in ROLES if plain.get(role)}
    entries.update(overrides)
    if not entries:
        raise UserError(f"{file} names no train, val or test")
    mirror_safe = _mirror_safe(plain.get("mirror_safe", True), file)
    is_coco = any(isinstance(e, Mapping) or str(e).endswith(".json") for e in entries.values())
    if is_coco:
        first = next(iter(entries.values()))
        json_file, _ = _coco_entry(root, first, False)
        names = list(coco.category_names(coco.read_annotations(json_file), json_file).values())
        if plain.get("names") is not None and _names(plain["names"], plain.get("nc"), file) != names:
            raise UserError(f"{file}: its names are not those of {json_file}, whose classes count: leave names out")
        return DataSet("coco", root, names, entries, str(file), mirror_safe)
    return DataSet("yolo", root, _names(plain.get("names"), plain.get("nc"), file), entries, str(file), mirror_safe)


def _from_folder(root: Path, overrides: Mapping[str, str]) -> DataSet:
    """Describe a folder in the usual YOLO layout: images/train and labels/train, or train/images and train/labels.

    ``images`` and ``labels`` alone are train.
    """
    entries: dict[str, Any] = {}
    for role, folders in _FOLDER_NAMES.items():
        for name in folders:
            for path in (Path("images") / name, Path(name) / "images"):
                if role not in entries and (root / path).is_dir():
                    entries[role] = path
    entries.update(overrides)
    if not entries and all((root / name).is_dir() for name in ("images", "labels")):
        entries["train"] = "images"  # not divided yet
    if not entries:
        raise UserError(
            f"{root} is not a data set: expected a data.yaml, images/train and images/val, train/images and "
            "valid/images, images and labels (all of it train), or a Pascal VOC root (JPEGImages, Annotations, "
            "ImageSets/Main)"
        )
    listed = next((root / n for n in ("classes.txt", "labels/classes.txt") if (root / n).is_file()), None)
    # without names: numbers, as many as all roles need together, so that every role counts alike
    names = (
        read_names(listed)
        if listed
        else [f"class {i}" for i in range(yolo.class_count([root / str(entry) for entry in entries.values()]))]
    )
    return DataSet("yolo", root, names, entries, str(root))


def open_dataset(path: Path, overrides: Mapping[str, str], plain: Mapping[str, Any] | None = None) -> DataSet:
    """Find out what ``path`` is and describe it.

    Args:
        path: A YAML, a COCO json, a VOC root or a YOLO folder.
        overrides: {role: list, folder or json} that replace the data set's own.
        plain: The content of ``path`` where it is a YAML that was read already.

    Raises:
        UserError: it does not exist or is none of these.
    """
    if plain is not None:
        return _from_yaml(path, plain, overrides)
    if path.suffix == ".json" and path.is_file():
        names = list(coco.category_names(coco.read_annotations(path), path).values())
        entries: dict[str, Any] = {role: path.name for role in ROLES} | dict(overrides)
        return DataSet("coco", path.parent, names, entries, str(path))
    if not path.exists():
        raise UserError(f"data {path} does not exist: give a YAML, a COCO json, a VOC root or a folder")
    if not path.is_dir():
        raise UserError(f"data {path} is not understood: give a YAML, a COCO json, a VOC root or a folder")
    if (path / "Annotations").is_dir() and (path / "ImageSets" / "Main").is_dir():
        return DataSet("voc", path, voc.class_names(path), {"train": "train", "val": "val", "test": "test"} |
                       dict(overrides), str(path))  # fmt: skip
    return _from_folder(path, overrides)
