"""Pascal VOC: one XML file an image (Annotations), pictures in JPEGImages, lists of stems in ImageSets/Main."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from yolite.structures import Sample


def _add(parent: ElementTree.Element, tag: str, text: object = None) -> ElementTree.Element:
    """Add an element with a text to ``parent``."""
    element = ElementTree.SubElement(parent, tag)
    element.text = None if text is None else str(text)
    return element


def annotation(sample: Sample, file: str, names: Sequence[str]) -> ElementTree.Element:
    """Return the XML of a sample: numbers as they are (no +1), with decimals only where they have some."""
    tree = ElementTree.Element("annotation")
    _add(tree, "filename", file)
    size = _add(tree, "size")
    _add(size, "width", sample.size[1])
    _add(size, "height", sample.size[0])
    # numpy's text of a float32 is the shortest that gives the same float32
    for i, box in enumerate(sample.boxes.numpy().astype(str).tolist()):
        item = _add(tree, "object")
        _add(item, "name", names[int(sample.labels[i])])
        _add(item, "difficult", int(sample.difficult[i]))
        bndbox = _add(item, "bndbox")
        for tag, number in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            _add(bndbox, tag, number.removesuffix(".0"))
    ElementTree.indent(tree)
    return tree


def write_voc(
    root: Path, roles: Sequence[str], files: Sequence[str], samples: Sequence[Sample], names: Sequence[str]
) -> None:
    """Write the annotations and lists of samples, and the classes in their order (classes.txt in the root).

    Args:
        root: Folder of the data set.
        roles: Names of the lists that hold these samples.
        files: Name of each sample's image in JPEGImages; its stem names the sample.
        samples: What to write.
        names: The data set's classes.
    """
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    stems = [Path(file).stem for file in files]
    for stem, file, sample in zip(stems, files, samples, strict=True):
        tree = ElementTree.ElementTree(annotation(sample, file, names))
        tree.write(root / "Annotations" / f"{stem}.xml", encoding="utf-8")
    for role in roles:
        (root / "ImageSets" / "Main" / f"{role}.txt").write_text("".join(f"{s}\n" for s in stems), encoding="utf-8")
