"""What a run notices about itself: each remark is one line, said once."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolite.files import write_json_lines
from yolite.training.place import Place

WAITING = 0.25
"""Share of an epoch spent waiting for data above which the loader is called slow."""


def memory_now() -> int:
    """Return this process's memory in bytes (0 where the system does not tell)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


def memory_peak() -> int:
    """Return the most memory this process ever took, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class Watch:
    """Looks at each finished epoch and remarks on what the user should know.

    Args:
        names: Class names.
        objects: Number of training boxes of each class.
        clip: Largest gradient norm, 0 where none is set.
        cached: Whether decoded images are kept.
    """

    def __init__(self, names: Sequence[str], objects: Sequence[int], clip: float, cached: bool) -> None:
        self.names, self.objects, self.clip, self.cached = names, objects, clip, cached
        self._said: set[str] = set()
        self._memory = 0

    def remarks(self, place: Place) -> list[str]:
        """Return the new remarks on the epoch that ``place`` has just gone through (before it is closed)."""
        found = [*self._classes(place), *self._loader(place), *self._gradients(place), *self._growth()]
        new = [(topic, text) for topic, text in found if topic not in self._said]
        self._said |= {topic for topic, _ in new}
        return [text for _, text in new]

    def _classes(self, place: Place) -> Iterator[tuple[str, str]]:
        if place.epoch > 0:
            return
        for name, count, objects in zip(self.names, place.positives, self.objects, strict=True):
            if count == 0:
                why = f"its {objects} boxes suit no anchor" if objects else "no training box has it"
                yield f"class {name}", f"class {name!r} got no positive in the first epoch: {why}; it cannot be learned"

    def _loader(self, place: Place) -> Iterator[tuple[str, str]]:
        waited, worked = place.wait_seconds, place.step_seconds
        # the first batch of an epoch is always waited for; less than two seconds are no matter
        if waited > 2 and waited > WAITING * (waited + worked):
            remedy = "give more data.workers" if self.cached else "try data.cache=ram, or more data.workers"
            text = (
                f"the loader is slower than the model: {waited:.0f} s of {waited + worked:.0f} s in epoch "
                f"{place.epoch + 1} went by waiting for images: {remedy}"
            )
            yield "loader", text

    def _gradients(self, place: Place) -> Iterator[tuple[str, str]]:
        mean = place.means().get("grad_norm", 0.0)
        if place.epoch > 0 and self.clip and mean > self.clip:
            text = (
                f"gradients are large: their norm was {mean:.1f} on average in epoch {place.epoch + 1}, above "
                f"train.clip={self.clip:g}, so most are cut short: try a lower train.lr"
            )
            yield "exploding", text
        if 0 < mean < 1e-6:
            text = (
                f"gradients have vanished: their norm was {mean:.1e} on average in epoch {place.epoch + 1}; nothing "
                "useful is learned any more: look with train.gradient_stats=50"
            )
            yield "vanishing", text

    def _growth(self) -> Iterator[tuple[str, str]]:
        now = memory_now()
        if not self._memory:
            self._memory = now
        elif now > 1.5 * self._memory and now - self._memory > 2**29:
            text = (
                f"memory grows: {now / 2**30:.1f} GiB now, {self._memory / 2**30:.1f} GiB after the first epoch of "
                "this sitting: save and resume if it goes on"
            )
            yield "memory", text


class GradientLog:
    """Statistics of weights and gradients by depth, one JSON line every so many steps.

    Args:
        path: The file; one that is there is continued.
        every: Steps between two lines; 0: never.
        step: Steps done so far: later lines (of a run that was killed) are taken out.
    """

    def __init__(self, path: Path, every: int, step: int) -> None:
        self.path, self.every = path, every
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.rows: list[dict[str, Any]] = [row for row in rows if row["step"] <= step]

    def note(self, model: nn.Module, step: int) -> None:
        """Write a line if ``step`` (counted from 1) is one of those asked for; the gradients must still be there."""
        if self.every and step % self.every == 0:
            self.rows.append({"step": step, "layers": layer_statistics(model)})
            write_json_lines(self.path, self.rows)


@torch.no_grad()
def layer_statistics(model: nn.Module) -> Mapping[str, dict[str, float]]:
    """Return the root mean square of the convolution weights and of their gradients, by name, in order of depth."""
    out = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and parameter.grad is not None:
            weight, gradient = (float(t.float().square().mean().sqrt()) for t in (parameter, parameter.grad))
            out[name.removeprefix("graph.").removesuffix(".weight")] = {"weight": weight, "gradient": gradient}
    return out
