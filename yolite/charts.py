"""Curves that need numbers alone (no torch, no OpenCV): one run, its gradients, runs side by side, a search."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolite.errors import UserError
from yolite.files import write_atomically

LEGEND = 24
"""So many runs are named in a legend; more would hide the curves."""


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """Return a matplotlib figure and its axes (one, or an array of them) that need no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, **options)


def require_png(path: Path | None) -> None:
    """Refuse a --plot that is no .png.

    Raises:
        UserError: another ending.
    """
    if path is not None and path.suffix != ".png":
        raise UserError(f"--plot {path}: the picture is a .png")


def save(fig: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    picture = io.BytesIO()
    fig.savefig(picture, format="png")
    write_atomically(path, lambda file: file.write(picture.getvalue()))


def plot_curves(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Draw the loss parts (training; the validation total dashed), AP and AP50 of a run over its epochs."""
    fig, (left, right) = figure(10, 4, 1, 2)
    epochs = [row["epoch"] for row in history]
    look: dict[str, Any] = {"marker": "." if len(history) < 40 else ""}
    parts = [key for key in history[-1] if key.startswith("loss_")]
    for key in parts:
        left.plot(epochs, [row.get(key) for row in history], label=key.removeprefix("loss_"), **look)
    colour = left.lines[-1].get_color() if parts else None
    left.plot(epochs, [row.get("val_loss") for row in history], "--", color=colour, label="validation", **look)
    for key in ("AP", "AP50"):
        right.plot(epochs, [row[key] for row in history], label=key, **look)
    left.set(xlabel="epoch", title="loss", ylim=(0, None))
    right.set(xlabel="epoch", title="validation, pycocotools", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize=8)
    save(fig, path)


def plot_gradients(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw, over steps and depth, how large weights and gradients are (the lines of gradients.jsonl)."""
    names = list(rows[0]["layers"])
    fig, panels = figure(11, max(4.0, 0.16 * len(names)), 1, 2, sharey=True)
    for key, axes in zip(("weight", "gradient"), panels, strict=True):
        values = [[math.log10(max(1e-12, row["layers"][name][key])) for row in rows] for name in names]
        image = axes.imshow(values, aspect="auto", interpolation="nearest", cmap="viridis")
        axes.set(title=f"{key}: log10 of the root mean square", xlabel="step")
        ticks = sorted({round(i * (len(rows) - 1) / 5) for i in range(6)})
        axes.set_xticks(ticks, [rows[i]["step"] for i in ticks])
        axes.set_yticks(range(len(names)), names, fontsize=6)
        fig.colorbar(image, ax=axes)
    save(fig, path)


def plot_runs(path: Path, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Draw AP (best epoch marked) and the training loss over the epochs, one line a run.

    Args:
        path: The .png.
        runs: By name: the rows of metrics.jsonl.
    """
    from matplotlib import colormaps

    # beyond ten runs the colours run along a scale instead of repeating themselves
    scale = colormaps["tab10"] if len(runs) <= 10 else colormaps["viridis"].resampled(len(runs))
    named = min(len(runs), LEGEND)
    fig, (left, right) = figure(11, 4.3 + 0.2 * -(-named // 4), 1, 2)
    for number, (name, rows) in enumerate(runs.items()):
        epochs, ap = [row["epoch"] for row in rows], [row["AP"] for row in rows]
        look: dict[str, Any] = {"color": scale(number), "marker": "." if len(rows) < 3 else ""}
        left.plot(epochs, ap, label=name if number < LEGEND else None, **look)
        left.plot(epochs[ap.index(max(ap))], max(ap), "o", color=look["color"], markersize=5)
        losses = [(row["epoch"], row["loss_total"]) for row in rows if "loss_total" in row]
        right.plot([epoch for epoch, _ in losses], [loss for _, loss in losses], **look)
    left.set(xlabel="epoch", title="AP on validation (dot: the highest)", ylim=(0, None))
    right.set(xlabel="epoch", title="training loss", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    title = f"the first {LEGEND} of {len(runs)} runs" if len(runs) > LEGEND else None
    fig.legend(loc="outside lower center", ncols=min(4, named), fontsize=8, title=title)
    save(fig, path)


def plot_search(
    path: Path, trials: Sequence[tuple[int, float, bool, Mapping[str, float]]], keys: Mapping[str, bool]
) -> None:
    """Draw the AP of a search's trials, in their order and by each searched setting.

    Args:
        path: The .png.
        trials: Number, AP, whether it was finished (else: pruned), and its settings.
        keys: The searched settings, each with whether its axis is logarithmic.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    columns = min(3, len(keys) + 1)
    fig, panels = figure(4 * columns, 3 * -(-(len(keys) + 1) // columns), -(-(len(keys) + 1) // columns), columns)
    first, *others = panels.flat
    order = sorted(trials, key=lambda trial: trial[0])
    best = [max((ap for _, ap, finished, _ in order[: n + 1] if finished), default=None) for n in range(len(order))]
    first.step([trial[0] for trial in order], best, where="post", color="0.6", label="best so far")
    for finished, look in ((True, {"color": "C0"}), (False, {"facecolors": "none", "edgecolors": "C1"})):
        shown = [trial for trial in order if trial[2] == finished]
        name = "finished" if finished else "pruned (its last AP)"
        first.scatter([t[0] for t in shown], [t[1] for t in shown], s=18, label=name if shown else None, **look)
        for axes, key in zip(others, keys, strict=False):
            axes.scatter([t[3][key] for t in shown], [t[1] for t in shown], s=18, **look)
    first.set(xlabel="trial", title="AP by trial")
    first.xaxis.get_major_locator().set_params(integer=True)
    first.legend(fontsize=8)
    for axes, (key, log) in zip(others, keys.items(), strict=False):
        axes.set(xscale="log" if log else "linear", title=f"AP by {key}")
        if log:  # 0.002 instead of 2 x 10 to the -3
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    for axes in others[len(keys) :]:
        axes.remove()
    save(fig, path)
