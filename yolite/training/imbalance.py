"""What is said, and decided, about classes that have few boxes."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 5
"""Of so many of the rarest classes, and of the commonest, the numbers are said."""


def _each_class(names: Sequence[str], boxes: Sequence[float], words: Sequence[str]) -> str:
    """Return the words on each class that has boxes, the rarest first; of many classes on both ends alone."""
    found = sorted((c for c in range(len(names)) if boxes[c]), key=lambda c: boxes[c])
    listed = [f"{names[c]} {words[c]}" for c in found]
    if len(found) > 2 * NAMED:
        listed = [*listed[:NAMED], f"({len(found) - 2 * NAMED} classes between)", *listed[-NAMED:]]
    if missing := len(names) - len(found):
        listed.append(f"({missing} classes have none)")
    return ", ".join(listed)


def counts_line(
    settings: str, names: Sequence[str], pictures: tuple[int, int], before: Sequence[float], after: Sequence[float]
) -> str:
    """Say what a sampler does to the counts.

    Args:
        settings: What was asked for.
        names: Class names.
        pictures: Pictures an epoch without and with it.
        before: Boxes of each class an epoch without it.
        after: The same with it, on average.
    """
    words = [f"{old:.0f} -> {new:.0f}" for old, new in zip(before, after, strict=True)]
    return (
        f"{settings}: an epoch shows {pictures[1]} pictures instead of {pictures[0]}; boxes of a class an epoch "
        f"(mosaic aside): {_each_class(names, before, words)}"
    )


def inverse_frequency(boxes: Sequence[float]) -> list[float]:
    """Return one over each class's boxes, scaled to 1 on average; a class without boxes gets 1 and does not count."""
    inverse = [1 / n if n else 0.0 for n in boxes]
    mean = sum(inverse) / sum(n > 0 for n in boxes)
    return [round(i / mean, 6) if i else 1.0 for i in inverse]


def weights_line(names: Sequence[str], boxes: Sequence[float], weights: Sequence[float], how: str) -> str:
    """Say what class weights do to the counts."""
    words = [f"{n:.0f} x {w:.3g} = {n * w:.0f}" for n, w in zip(boxes, weights, strict=True)]
    return f"loss.class_weights ({how}): boxes of a class an epoch x weight: {_each_class(names, boxes, words)}"
