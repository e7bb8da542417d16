"""Curves that need numbers alone (no torch, no OpenCV): one run, its gradients, runs side by side, a search."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolite.errors import UserError
from yolite.files import write_atomically

BARS = 30
"""So many classes get a bar."""

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


def _as_it_is(name: str) -> str:
    """Return a name of the user's so that matplotlib draws it: no formula between ``$``, no half of a character."""
    return name.encode(errors="backslashreplace").decode().replace("$", r"\$")


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
        left.plot(epochs, ap, label=_as_it_is(name) if number < LEGEND else None, **look)
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


def plot_steps(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw an ablation: AP, AP50 and recall of each step, a dot a seed and a line through the means, and the seconds.

    Args:
        path: The .png.
        rows: As `yolite.commands.ablate` writes them.
    """
    fig, (left, right) = figure(11, 1.6 + 0.45 * len(rows), 1, 2, sharey=True, width_ratios=[3, 1])
    places = range(len(rows))
    for number, column in enumerate(("AP", "AP50", "recall")):
        left.plot([row[column] for row in rows], places, color=f"C{number}", label=column)
        for place, row in zip(places, rows, strict=True):
            values = [run[column] for run in row["seeds"] if run["error"] is None]
            left.plot(values, [place] * len(values), ".", color=f"C{number}")
    right.barh(places, [row["seconds"] or 0 for row in rows], color="0.6")
    left.set(title="validation, pycocotools (a dot: one seed)", xlim=(0, None), ylim=(len(rows) - 0.5, -0.5))
    left.set_yticks(places, [("" if place == 0 else "+ ") + row["step"] for place, row in enumerate(rows)])
    right.set(title="training, seconds")
    for axes in (left, right):
        axes.set_axisbelow(True)
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    save(fig, path)


def plot_data(
    path: Path, wh: Any, centres: Any, roles: Any, names: Sequence[str], classes: Mapping[str, Mapping[str, int]],
    imgsz: tuple[int, int],
) -> None:  # fmt: skip
    """Draw what a data set is made of: boxes by class, their sizes, where they lie, their shapes.

    Args:
        path: The .png.
        wh: [N, 2] widths and heights, input px.
        centres: [N, 2], as shares of the image.
        roles: [N] place of the split.
        names: The splits.
        classes: By class: the boxes of each split.
        imgsz: (H, W) of the input.
    """
    most = sorted(classes.items(), key=lambda item: -sum(item[1].values()))[:BARS]
    fig, ((top, scatter), (heat, shape)) = figure(12, 9, 2, 2)
    left = [0] * len(most)
    for role in names:
        counts = [row[role] for _, row in most]
        top.barh([_as_it_is(name) for name, _ in most], counts, left=left, label=role)
        left = [a + b for a, b in zip(left, counts, strict=True)]
    more = f" (the {BARS} largest of {len(classes)})" if len(classes) > BARS else ""
    top.set(title=f"boxes by class{more}", xlabel="boxes", ylim=(len(most) - 0.5, -0.5))
    top.tick_params(axis="y", labelsize=9 if len(most) <= 15 else 7)
    bins = [2 ** (i / 4) for i in range(-16, 17)]
    for number, role in enumerate(names):
        mine = wh[roles == number]
        scatter.scatter(mine[:, 0], mine[:, 1], s=4, alpha=0.4, linewidths=0, label=role)
        shape.hist((mine[:, 0] / mine[:, 1]).clip(bins[0], bins[-1]), bins, histtype="step", label=role)
    _size_axes(scatter, float(wh.min()) if len(wh) else 1.0, imgsz)
    _, _, _, image = heat.hist2d(centres[:, 0], centres[:, 1], bins=24, range=((0, 1), (0, 1)), cmap="magma")
    heat.set(title="where the centres lie", xlabel="x, share of the width", ylabel="y, share of the height")
    heat.invert_yaxis()
    fig.colorbar(image, ax=heat, label="boxes")
    shape.set(xscale="log", title="shapes", xlabel="width / height", ylabel="boxes")
    shape.set_xticks([1 / 16, 1 / 4, 1 / 2, 1, 2, 4, 16], ["1:16", "1:4", "1:2", "1:1", "2:1", "4:1", "16:1"])
    shape.minorticks_off()
    for axes in (top, scatter, shape):
        axes.set_axisbelow(True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, markerscale=4 if axes is scatter else 1)
    save(fig, path)


def _size_axes(axes: Any, smallest: float, imgsz: tuple[int, int]) -> None:
    """Give the scatter of sizes its logarithmic axes and the lines between COCO's small, medium and large."""
    axes.set(xscale="log", yscale="log")
    axes.minorticks_off()
    low = max(1.0, smallest * 0.8)
    high = (imgsz[1] * 1.1, imgsz[0] * 1.1)
    for side, below, above in ((32, "small", "medium"), (96, "medium", "large")):
        axes.plot([side * side / high[1], high[0]], [high[1], side * side / high[0]], "--", color="0.4", linewidth=1)
        text = f"{below} < {side}x{side} px <= {above}"
        axes.annotate(text, (high[0] * 0.95, side * side / high[0] * 1.25), fontsize=8, ha="right",
                      bbox={"color": "white", "alpha": 0.8, "pad": 1})  # fmt: skip
    ticks = [2**i for i in range(12)]
    axes.set_xticks(ticks, ticks)
    axes.set_yticks(ticks, ticks)
    axes.set(xlim=(low, high[0]), ylim=(low, high[1]), xlabel="width, input px", ylabel="height, input px")
    axes.set_title(f"sizes at {imgsz[0]}x{imgsz[1]} px")
