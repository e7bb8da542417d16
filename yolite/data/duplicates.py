"""The same picture twice: by content, or by look (another size, another compression, a little brighter)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from yolite.data.look import Look
from yolite.data.problems import Problem

_MOST_BITS = 3
"""Pictures whose 64 gradients differ in more places are never compared."""
_BANDS = 6
_ALIKE = 0.995
"""So large a correlation of their 8x8 grey pictures makes two pictures nearly the same."""
_PLAIN = 4.0
"""Grey levels of deviation below which a picture shows nothing that could be compared."""


def _candidates(hashes: npt.NDArray[np.uint64]) -> set[tuple[int, int]]:
    """Return pairs (i < j) of distinct 64-bit hashes that differ in at most `_MOST_BITS` bits.

    Of six bands of bits at least three are then equal. For each choice of three, equal ones are brought side by side
    by sorting, so that the cost grows with the number of hashes, not with its square.
    """
    edges = [64 * i // _BANDS for i in range(_BANDS + 1)]
    bands = [sum(1 << bit for bit in range(low, high)) for low, high in pairwise(edges)]
    pairs: set[tuple[int, int]] = set()
    for chosen in combinations(bands, _BANDS - _MOST_BITS):
        keys = hashes & np.uint64(sum(chosen))
        order = np.argsort(keys, kind="stable")
        for step in range(1, len(order)):
            same = keys[order[step:]] == keys[order[:-step]]
            if not same.any():
                break
            left, right = order[:-step][same], order[step:][same]
            differing = np.unpackbits((hashes[left] ^ hashes[right])[:, None].view(np.uint8), axis=1).sum(1)
            near = differing <= _MOST_BITS
            pairs.update((min(a, b), max(a, b)) for a, b in zip(left[near].tolist(), right[near].tolist(), strict=True))
    return pairs


def _alike(looks: Sequence[Look]) -> list[tuple[int, int]]:
    """Return the places of pictures that look alike, the earlier one first, in order."""
    grey = np.array([np.frombuffer(bytes.fromhex(look.grey), np.uint8) for look in looks], np.float32).reshape(-1, 64)
    shape = grey - grey.mean(1, keepdims=True)
    deviation = shape.std(1, keepdims=True)
    shape /= np.maximum(deviation, 1e-6) * 8
    hashes, first, group = np.unique(
        np.array([int(look.gradients, 16) for look in looks], np.uint64), return_index=True, return_inverse=True
    )
    pairs = [(int(first[g]), i) for i, g in enumerate(group.ravel())]
    pairs += [(int(first[a]), int(first[b])) for a, b in _candidates(hashes)]
    return [
        (low, high)
        for low, high in sorted((min(pair), max(pair)) for pair in pairs if pair[0] != pair[1])
        if min(deviation[low, 0], deviation[high, 0]) >= _PLAIN and float(shape[low] @ shape[high]) >= _ALIKE
    ]


def _same(looks: Sequence[Look]) -> list[list[int]]:
    """Return the places of the pictures of each content, in order of the first; what cannot be decoded is left out."""
    by_digest: dict[str, list[int]] = {}
    for i, look in enumerate(looks):
        if look.digest and not look.kind:
            by_digest.setdefault(look.digest, []).append(i)
    return list(by_digest.values())


def _alike_contents(contents: Sequence[Sequence[int]], looks: Sequence[Look]) -> list[tuple[int, int]]:
    """Return `_alike` of the first pictures of these contents, as places in ``looks``."""
    firsts = [places[0] for places in contents]
    return [(firsts[a], firsts[b]) for a, b in _alike([looks[i] for i in firsts])] if firsts else []


def groups_alike(looks: Sequence[Look]) -> list[int]:
    """Return for each picture the number of its group: pictures that are the same or nearly the same have one."""
    contents = _same(looks)
    earlier = list(range(len(looks)))

    def first(place: int) -> int:
        while earlier[place] != place:
            place = earlier[place]
        return place

    pairs = [(places[0], other) for places in contents for other in places[1:]]
    for pair in pairs + _alike_contents(contents, looks):
        low, high = sorted(map(first, pair))
        earlier[high] = low
    return [first(place) for place in range(len(looks))]


def find_duplicates(roles: Sequence[str], paths: Sequence[Path], looks: Sequence[Look]) -> list[tuple[int, Problem]]:
    """Report each picture that was there before, by content or by look.

    Args:
        roles: The role of each picture.
        paths: Its file.
        looks: What `yolite.data.look.look_at` says of it.

    Returns:
        The place of each such picture, and the finding.
    """
    contents = _same(looks)
    alike: dict[int, int] = {}
    for low, high in _alike_contents(contents, looks):
        alike.setdefault(high, low)
    found = []
    for places in contents:
        for i in places:
            earlier, how = (places[0], "duplicate") if i != places[0] else (alike.get(i, i), "similar")
            if earlier == i:
                continue
            across = roles[i] != roles[earlier]
            message = (
                f"nearly the same picture as {paths[earlier]}"
                if how == "similar"
                else ("the same file again" if paths[i] == paths[earlier] else f"the same content as {paths[earlier]}")
            )
            kind = f"{how} image across splits" if across else f"{how} image"
            where = f" ({roles[earlier]} and {roles[i]})" if across else ""
            found.append((i, Problem(paths[i], 0, kind, message + where)))
    return found
