"""Pascal VOC: one XML file an image (Annotations), pictures in JPEGImages, lists of stems in ImageSets/Main."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from yolite.data.images import SUFFIXES, ImageError, image_size
from yolite.data.problems import Problem, Row, make_sample, number
from yolite.errors import UserError
from yolite.files import read_label, read_lines, read_names
from yolite.structures import Sample, Size


class _NoDocumentType(ElementTree.TreeBuilder):
    """Builds a tree, but of a file without a document type, which is the way to entity bombs."""

    def doctype(self, name: str, *_: object) -> None:
        """Refuse: called where the declaration starts, before any entity is read."""
        raise ValueError("it declares a document type, which is refused")


def _parse(file: Path) -> ElementTree.Element:
    """Parse one annotation.

    Raises:
        ValueError: not XML or with a document type.
    """
    try:
        return ElementTree.fromstring(read_label(file), ElementTree.XMLParser(target=_NoDocumentType()))
    except (ElementTree.ParseError, LookupError) as error:  # LookupError: an encoding that does not exist
        raise ValueError(f"not XML: {error}") from None


def class_names(root: Path) -> list[str]:
    """Return the classes: those of a ``classes.txt`` in the root, else every name in Annotations, sorted."""
    listed = root / "classes.txt"
    if listed.is_file():
        return read_names(listed)
    names: set[str] = set()
    for file in sorted((root / "Annotations").glob("*.xml")):
        try:
            names.update((tag.text or "").strip() for tag in _parse(file).iterfind("object/name"))
        except (OSError, ValueError):
            continue  # reported when the file is read for its boxes
    names.discard("")
    if not names:
        raise UserError(f"{root / 'Annotations'} names no object: is it a Pascal VOC root?")
    return sorted(names)


def list_names(folder: Path) -> list[str]:
    """Return the names of the lists in ImageSets/Main."""
    return sorted(path.stem for path in folder.glob("*.txt"))


def _stems(listing: Path) -> list[str]:
    """Read the stems of a list; lines of VOC's per-class lists (``stem 1``) are read by their first word."""
    if not listing.is_file():
        there = list_names(listing.parent)
        raise UserError(
            f"{listing} does not exist: choose a list with data.ROLE=NAME, one of {', '.join(there) or 'none there'}"
        )
    return [line.split()[0] for line in read_lines(listing)]


def _image_of(root: Path, stem: str) -> Path:
    """Return the picture of a stem (any usual ending)."""
    usual = (".jpg", *sorted(SUFFIXES))
    for suffix in (*usual, *(suffix.upper() for suffix in usual)):
        path = root / "JPEGImages" / f"{stem}{suffix}"
        if path.is_file():
            return path
    return root / "JPEGImages" / f"{stem}.jpg"


def _check_size(tree: ElementTree.Element, size: Size, file: Path, problems: list[Problem]) -> None:
    """Report an annotation that states another size than the image has, or none."""
    texts = [(tree.findtext(f"size/{side}") or "").strip() for side in ("height", "width")]
    try:
        stated = [number(text or "0") for text in texts]  # some tools write 60.0
    except ValueError:
        stated = [math.nan, math.nan]
    said = "x".join((text or "nothing")[:40] for text in reversed(texts))
    if min(stated) <= 0:
        problems.append(Problem(file, 0, "no stated size", f"the XML says {said} px"))
    elif tuple(stated) != size:
        message = f"the XML says {said} px, the image has {size[1]}x{size[0]}"
        problems.append(Problem(file, 0, "size differs", message))


def _objects(tree: ElementTree.Element, file: Path, problems: list[Problem]) -> list[ElementTree.Element]:
    """Return the objects of an annotation; those that are not where VOC has them are reported."""
    objects = tree.findall("object")
    here = set(map(id, objects))
    astray = [item for item in tree.iter() if item.tag.rpartition("}")[2].lower() == "object" and id(item) not in here]
    if astray:
        where = f"<{astray[0].tag[:60]}> somewhere in <{tree.tag[:60]}>"
        message = f"{len(astray)} objects are not directly in <annotation> (first: {where})"
        problems.append(Problem(file, 0, "misplaced object", message))
    elif not objects:
        problems.append(Problem(file, 0, "empty label file", "there is no object in it"))
    return objects


def _box(element: ElementTree.Element) -> tuple[tuple[float, float, float, float] | None, str, str]:
    """Return an object's box, numbers as written (no −1); or None, the kind of finding that it is, and its values."""
    if (count := len(element.findall("bndbox"))) > 1:
        return None, "field count", f"(there are {count})"
    texts = [element.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
    shown = ", ".join("nothing" if text is None else text.strip()[:20] for text in texts)
    try:
        x1, y1, x2, y2 = (number(text or "") for text in texts)
    except ValueError:
        missing = any(text is None or not text.strip() for text in texts)
        return None, "field count" if missing else "not a number", shown
    return (x1, y1, x2, y2), "", shown


def _rows(file: Path, objects: Iterable[ElementTree.Element], names: list[str], problems: list[Problem]) -> list[Row]:
    """Read the boxes of one annotation."""
    rows = []
    for place, element in enumerate(objects, 1):
        name = (element.findtext("name") or "").strip()
        if name not in names:
            problems.append(Problem(file, place, "unknown class", f"class {name[:60]!r} is not in the list"))
            continue
        box, kind, shown = _box(element)
        if box is None:
            problems.append(Problem(file, place, kind, f"bndbox {shown} is not four numbers"))
            continue
        difficult = (element.findtext("difficult") or "0").strip()
        if difficult not in ("0", "1"):
            problems.append(Problem(file, place, "flag", f"difficult {difficult[:60]!r} is neither 0 nor 1"))
        rows.append(Row(place, box, names.index(name), difficult=difficult == "1"))
    return rows


def read_voc(root: Path, listing: str, names: list[str], problems: list[Problem], unread: Counter[str]) -> list[Sample]:
    """Read the samples of one list of a VOC root.

    Args:
        root: Folder with JPEGImages, Annotations and ImageSets/Main.
        listing: Name of the list, with or without ``.txt``.
        names: The data set's classes.
        problems: Findings are added here.
        unread: What objects hold besides name, box and difficult (truncated, pose, part …) is counted here, by tag.

    Raises:
        UserError: there is no such list, or it is empty.
    """
    samples = []
    file = root / "ImageSets" / "Main" / f"{listing.removesuffix('.txt')}.txt"
    stems = _stems(file)
    if not stems:
        raise UserError(f"{file} is empty: it should name one image a line")
    seen: set[str] = set()
    for stem in stems:
        said = [] if stem in seen else problems  # a list may name an image twice: what is wrong with it is said once
        seen.add(stem)
        image, annotation = _image_of(root, stem), root / "Annotations" / f"{stem}.xml"
        try:
            size = image_size(image)
        except ImageError as error:
            said.append(Problem(image, 0, error.kind, str(error)))
            continue
        rows: list[Row] = []
        try:
            tree = _parse(annotation)
            _check_size(tree, size, annotation, said)
            objects = _objects(tree, annotation, said)
            rows = _rows(annotation, objects, names, said)
            _count_unread(objects, unread)
        except FileNotFoundError:
            text = "there is no annotation"
            said.append(Problem(annotation, 0, "no label file", text))
        except (OSError, ValueError) as error:
            text = f"the annotation cannot be read ({error})"
            said.append(Problem(annotation, 0, "unreadable label file", text))
        samples.append(make_sample(image, size, rows, annotation, stem, said))
    _report_orphans(root, problems)
    return samples


def _count_unread(objects: Iterable[ElementTree.Element], unread: Counter[str]) -> None:
    """Count what objects hold besides what is read, by tag."""
    for tag in (tag for item in objects for tag in item):
        said = len(tag) > 0 or (tag.text or "").strip() not in ("", "0", "Unspecified")
        if said and tag.tag not in ("name", "bndbox", "difficult"):
            unread[tag.tag] += 1


def _report_orphans(root: Path, problems: list[Problem]) -> None:
    """Report annotations of no picture, listed or not."""
    pictures = {path.stem for path in (root / "JPEGImages").iterdir()} if (root / "JPEGImages").is_dir() else set()
    for file in sorted((root / "Annotations").glob("*.xml")):
        if file.stem not in pictures:
            problems.append(Problem(file, 0, "label without image", "no image belongs to it"))
