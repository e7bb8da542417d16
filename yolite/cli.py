"""The command line: ``yolite VERB …``. Each verb's work is in `yolite.commands`, imported only when it is called."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from yolite import __version__
from yolite.defaults import CONF, IOU, MAX_DET, NMS, OVERLAP
from yolite.errors import UserError, nearest

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="A YOLO you can read, trust, and train on the machine you have. key=value words set any option of the "
    "configuration (train.lr=0.01). --debug shows the traceback of an error.",
)

Words = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings, e.g. train.lr=0.01")]
Data = Annotated[str | None, typer.Option(help="YAML, COCO json, VOC root or folder [default: the built-in digits]")]
Imgsz = Annotated[str | None, typer.Option(help="input size: S or HxW, multiples of 32")]
Batch = Annotated[int | None, typer.Option(min=1, help="images at once")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N")]
Half = Annotated[bool, typer.Option("--half", help="compute in 16 bits: faster, other in a score's second decimal")]
Json = Annotated[Path | None, typer.Option("--json", help="write the result here, for programs")]


def _options(**given: Any) -> dict[str, Any]:
    """Lay out given options (``section__key`` → nested), leaving out those that were not given."""
    out: dict[str, Any] = {}
    for name, value in given.items():
        if value is not None:
            section, _, key = name.partition("__")
            if key:
                out.setdefault(section, {})[key] = value
            else:
                out[name] = value
    return out


def _share_processors() -> None:
    """Before torch starts, for programs whose other threads read and write meanwhile.

    Where torch's threads wait for each other they would spin for milliseconds on the processor that the other one, or
    another program, needs: many times slower on a busy machine. GCC's OpenMP is told to spin for microseconds.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _print_version(asked: bool) -> None:
    """Print the version and leave."""
    if asked:
        print(f"yolite {__version__}")
        raise typer.Exit()


@app.callback()
def _every_verb(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


@app.command()
def train(
    words: Words = None,
    data: Data = None,
    model: Annotated[str | None, typer.Option(help="name in configs/ or path to a YAML [default: yolite-n]")] = None,
    weights: Annotated[str | None, typer.Option(help="checkpoint or run folder to start from")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="passes over the training images")] = None,
    imgsz: Imgsz = None,
    batch: Annotated[str | None, typer.Option(help="images a step, over all processes; or auto")] = None,
    device: Device = None,
    seed: Annotated[int | None, typer.Option(min=0, help="every draw comes from it")] = None,
    out: Annotated[Path | None, typer.Option(help="run folder [default: runs/MODEL-N]")] = None,
    resume: Annotated[Path | None, typer.Option(help="run folder to go on with")] = None,
    accept: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="with --resume: a setting (or data) that may differ now")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML with any of the settings")] = None,
    overfit: Annotated[int | None, typer.Option(min=1, help="learn N images by heart (a sanity check)")] = None,
) -> None:
    """Train a detector, judge it after every epoch, and end with COCO mAP."""
    from yolite.commands.train import resume_run, train_run

    options = _options(
        data__source=data, weights=weights, train__epochs=epochs, imgsz=imgsz, train__batch=batch, device=device,
        seed=seed, overfit=overfit,
    )  # fmt: skip
    if resume is not None:
        refused = {"--model": model, "--weights": weights, "--out": out, "--config": config}
        for flag, value in refused.items():
            if value is not None:
                raise UserError(f"{flag} cannot be given with --resume: the run {resume} has its own")
        resume_run(resume, options, words or [], accept or [])
    elif accept:
        raise UserError("--accept belongs to --resume: a new run takes any setting")
    else:
        train_run(model, config, options, words or [], out)


@app.command()
def evaluate(
    words: Words = None,
    weights: Annotated[str | None, typer.Option(help="checkpoint or run folder (its best)")] = None,
    results: Annotated[Path | None, typer.Option(help="any tool's COCO results json, scored against --data")] = None,
    data: Annotated[str | None, typer.Option(help="data set [default: the one the weights were trained on]")] = None,
    split: Annotated[str, typer.Option(help="role: train, val or test")] = "val",
    imgsz: Imgsz = None,
    batch: Batch = None,
    device: Device = None,
    half: Half = False,
    json: Json = None,
    report: Annotated[Path | None, typer.Option(help="write everything on one page here (.html)")] = None,
) -> None:
    """Print the 12 COCO numbers, the threshold to deploy, where the AP goes, and the worst pictures."""
    if (weights is None) == (results is None):
        raise UserError("evaluate needs either --weights W or --results FILE.json")
    from yolite.commands.evaluate import evaluate_results, evaluate_weights

    options = _options(data__source=data, imgsz=imgsz, eval__batch=batch, device=device)
    if results is not None and half:
        raise UserError("evaluate --results computes nothing: leave --half out")
    if results is not None:
        evaluate_results(results, split, options, words or [], json, report)
    else:
        evaluate_weights(str(weights), split, options, words or [], json, report, half)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="COCO results json of one detector")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="and of another, on the same images")],
    data: Annotated[str, typer.Option(help="the truth: YAML, COCO json, VOC root or folder")],
    words: Words = None,
    split: Annotated[str, typer.Option(help="role: train, val or test")] = "val",
    json: Json = None,
) -> None:
    """Say which classes, sizes and pictures got better or worse, and whether the difference is real."""
    from yolite.commands.compare import compare_results

    compare_results(a, b, split, _options(data__source=data), words or [], json)


@app.command()
def detect(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="images, folders, patterns, lists (.txt), videos, cameras (0), URLs"),
    ],
    weights: Annotated[str, typer.Option(help="checkpoint or run folder (its best)")],
    conf: Annotated[float, typer.Option(min=0, max=1, help="least score")] = CONF,
    iou: Annotated[float, typer.Option(min=0, max=1, help="NMS threshold")] = IOU,
    max_det: Annotated[int, typer.Option(min=1, help="most boxes an image")] = MAX_DET,
    imgsz: Imgsz = None,
    batch: Annotated[int, typer.Option(min=1, help="images at once")] = 1,
    device: Device = None,
    half: Half = False,
    out: Annotated[Path | None, typer.Option(help="folder for the pictures [default: runs/detect-N]")] = None,
    json: Json = None,
    tile: Annotated[bool, typer.Option("--tile", help="tiles of the input's size too, for small objects")] = False,
    overlap: Annotated[float, typer.Option(min=0, max=0.9, help="with --tile: share that neighbours share")] = OVERLAP,
    tta: Annotated[bool, typer.Option("--tta", help="several sizes, and mirrored if trained so; slower")] = False,
    stride: Annotated[int, typer.Option(min=1, help="every so many-th frame of a video")] = 1,
    nms: Annotated[
        str, typer.Option(help="hard (within each class), agnostic (across all), soft, diou, fusion")
    ] = "hard",
) -> None:
    """Draw boxes on images and videos; the JSON has them in px of the original, of a video a line for each frame."""
    if overlap != OVERLAP and not tile:
        raise UserError("--overlap belongs to --tile: give both, or leave it out")
    if nms not in NMS:
        raise UserError(f"--nms {nms!r} is not known{nearest(nms, NMS)}: give {', '.join(NMS[:-1])} or {NMS[-1]}")
    _share_processors()
    from yolite.commands.detect import detect_sources, settings_among

    sources, settings = settings_among(sources)
    imgsz, device = settings.get("imgsz", imgsz), settings.get("device", device)
    how = {
        "conf": conf, "iou": iou, "max_det": max_det, "batch": batch, "nms": nms, "tile": tile, "overlap": overlap,
        "tta": tta, "stride": stride,
    }  # fmt: skip
    detect_sources(sources, weights, how, imgsz, device or "auto", half, out, json)


@app.command()
def export(
    weights: Annotated[str, typer.Option(help="checkpoint or run folder (its best)")],
    format: Annotated[str, typer.Option(help="onnx, openvino or torchexport")],
    words: Words = None,
    data: Annotated[
        str | None, typer.Option(help="data of the parity report [default: what it was trained on]")
    ] = None,
    split: Annotated[str, typer.Option(help="role of its pictures: train, val or test")] = "val",
    imgsz: Imgsz = None,
    out: Annotated[Path | None, typer.Option(help="the file [default: beside the checkpoint]")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit integers, calibrated on training images")] = False,
    nms: Annotated[bool, typer.Option("--nms", help="threshold and NMS inside the graph")] = False,
    conf: Annotated[float | None, typer.Option(min=0, max=1, help="with --nms: least score")] = None,
    iou: Annotated[float | None, typer.Option(min=0, max=1, help="with --nms: NMS threshold")] = None,
    max_det: Annotated[int | None, typer.Option(min=1, help="with --nms: most boxes an image")] = None,
    json: Json = None,
) -> int:
    """Write an ONNX, OpenVINO or torch.export file and prove it on validation images; exit 1 if it differs."""
    from yolite.commands.export import export_weights

    options = _options(data__source=data, imgsz=imgsz)
    thresholds = {"conf": conf, "iou": iou, "max-det": max_det}
    return export_weights(weights, format, out, int8, nms, thresholds, split, options, words or [], json)


@app.command()
def bench(
    weights: Annotated[str, typer.Option(help="checkpoint, run folder (its best) or exported file")],
    words: Words = None,
    data: Annotated[str | None, typer.Option(help="whose pictures are read [default: its training's]")] = None,
    split: Annotated[str, typer.Option(help="role of its pictures: train, val or test")] = "val",
    imgsz: Imgsz = None,
    device: Device = None,
    json: Json = None,
) -> None:
    """Measure latency, images/s, memory and where the time goes, for every installed backend."""
    from yolite.commands.bench import bench_weights

    bench_weights(weights, split, _options(data__source=data, imgsz=imgsz, device=device), words or [], json)


@app.command()
def serve(
    weights: Annotated[str, typer.Option(help="checkpoint, run folder (its best) or exported file")],
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 is all of this machine's")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    imgsz: Imgsz = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    half: Half = False,
    batch: Annotated[int, typer.Option(min=1, help="most pictures through the network at once")] = 8,
    concurrency: Annotated[int, typer.Option(min=1, help="most requests at once; others get 429")] = 16,
    megabytes: Annotated[float, typer.Option(min=0.001, help="most MiB of a request")] = 20,
    megapixels: Annotated[float, typer.Option(min=0.001, help="most million px of a picture")] = 50,
    seconds: Annotated[float, typer.Option(min=0.1, help="most seconds of an upload")] = 10,
) -> None:
    """Answer pictures over HTTP: POST /detect, /health, /metrics, /docs and a page to try it on."""
    _share_processors()
    from yolite.commands.serve import serve_weights

    serve_weights(weights, host, port, imgsz, device, half, batch, concurrency, megabytes, megapixels, seconds)


@app.command()
def explain(
    weights: Annotated[str, typer.Option(help="checkpoint or run folder (its best)")],
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE]...", help="image files, folders, patterns")
    ] = None,
    data: Annotated[str | None, typer.Option(help="data set that has the true boxes of the images")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for pages and pictures [default: runs/explain-N]")] = None,
    cell: Annotated[
        str | None, typer.Option(metavar="LEVEL,ROW,COLUMN[,ANCHOR]", help="prediction to follow, numbers from 0")
    ] = None,
    batch: Annotated[bool, typer.Option("--batch", help="a batch of training pictures in place of IMAGE")] = False,
) -> None:
    """Show each step from a picture to its boxes, and what training asks of it, on one page with pictures."""
    from yolite.commands.explain import explain as explain_images

    explain_images(images or [], weights, _options(data__source=data), out, cell, batch)


@app.command()
def anchors(
    words: Words = None,
    data: Data = None,
    k: Annotated[int, typer.Option("--k", min=1, help="number of anchors")] = 9,
    imgsz: Annotated[str, typer.Option(help="input size: S or HxW, multiples of 32")] = "640",
    json: Json = None,
    plot: Annotated[Path | None, typer.Option(help="draw boxes and anchors here (.png)")] = None,
    centroid: Annotated[str, typer.Option(help="median or mean of a cluster")] = "median",
    levels: Annotated[int, typer.Option(min=1, help="levels that share the anchors")] = 3,
) -> None:
    """Compute anchors from the training boxes: k-means with the distance 1 - IoU."""
    from yolite.commands.anchors import anchors_of_data

    anchors_of_data(_options(data__source=data, imgsz=imgsz), words or [], k, json, plot, centroid, levels)


@app.command()
def convert(
    to: Annotated[str, typer.Option(help="yolo, coco or voc")],
    out: Annotated[Path, typer.Option(help="folder for the new data set; new or empty")],
    words: Words = None,
    data: Data = None,
    link: Annotated[bool, typer.Option("--link", help="symbolic links to the images instead of copies")] = False,
    val_share: Annotated[
        float | None,
        typer.Option(help="divide train: a half, third, fourth ... of it becomes val (0.2: a fifth)"),
    ] = None,
) -> None:
    """Write a data set in another format, or divide it; what that format cannot hold is said."""
    from yolite.commands.convert import convert_data

    convert_data(_options(data__source=data), words or [], to, out, link, val_share)


@app.command("import")
def import_(
    cfg: Annotated[Path, typer.Argument(metavar="CFG", help="Darknet's network file")],
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="Darknet's .weights file of this network")],
    out: Annotated[Path, typer.Option(help="the checkpoint to write")],
    names: Annotated[Path | None, typer.Option(help="class names, one a line [default: numbers]")] = None,
) -> None:
    """Turn a Darknet model into a checkpoint, for detect, evaluate and train --weights."""
    from yolite.commands.darknet import import_model

    import_model(cfg, weights, names, out)


@app.command()
def check(
    words: Words = None,
    data: Data = None,
    imgsz: Imgsz = None,
    json: Json = None,
    plot: Annotated[Path | None, typer.Option(help="draw classes, sizes, positions and shapes here (.png)")] = None,
    show: Annotated[int | None, typer.Option(min=1, help="write N augmented training batches as pictures")] = None,
    every: Annotated[bool, typer.Option("--all", help="print every finding, not 20 of a kind")] = False,
) -> int:
    """Read a data set as training does and list what is wrong with it; exit 1 if anything is."""
    from yolite.commands.check import check_data

    return check_data(_options(data__source=data, imgsz=imgsz), words or [], json, plot, show, every)


@app.command()
def summary(
    words: Words = None,
    model: Annotated[str | None, typer.Option(help="a name in configs/ or a path to a YAML")] = None,
    weights: Annotated[str | None, typer.Option(help="checkpoint or run folder")] = None,
    imgsz: Imgsz = None,
    classes: Annotated[int, typer.Option(min=1, help="number of classes (with --model)")] = 80,
) -> None:
    """Print each layer's output size, parameters, FLOPs and receptive field."""
    from yolite.commands.summary import print_summary

    print_summary(model, weights, _options(imgsz=imgsz), words or [], classes)


@app.command()
def runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIR]...", help="run folders, or folders of them [default: runs]")
    ] = None,
    json: Json = None,
    plot: Annotated[Path | None, typer.Option(help="draw AP and loss over the epochs here (.png)")] = None,
    sort: Annotated[str, typer.Option(help="a column, or a setting such as train.lr")] = "AP",
) -> None:
    """Compare runs: how far, how good, how long, and in which settings they differ."""
    from yolite.commands.runs import compare_runs

    compare_runs(folders or [Path("runs")], json, plot, sort)


@app.command()
def tune(
    words: Words = None,
    data: Data = None,
    trials: Annotated[int, typer.Option(min=1, help="trials in all, over all processes and calls")] = 20,
    model: Annotated[str | None, typer.Option(help="name in configs/ or path to a YAML [default: yolite-n]")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="passes over the training images, each trial")] = None,
    imgsz: Imgsz = None,
    batch: Batch = None,
    device: Device = None,
    seed: Annotated[int | None, typer.Option(min=0, help="every draw comes from it")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder; one that holds a search goes on [default: runs/tune-N]")
    ] = None,
) -> None:
    """Search for settings that give a higher AP on your data; what you set yourself stays as it is."""
    from yolite.commands.tune import tune_settings

    options = _options(
        data__source=data, train__epochs=epochs, imgsz=imgsz, train__batch=batch, device=device, seed=seed
    )
    tune_settings(model, options, words or [], trials, out)


@app.command()
def ablate(
    words: Words = None,
    data: Data = None,
    seeds: Annotated[int, typer.Option(min=1, help="runs of each step")] = 2,
    epochs: Annotated[int | None, typer.Option(min=1, help="passes over the training images, each run")] = None,
    imgsz: Annotated[str | None, typer.Option(help="the higher resolution, multiples of 64 [default: 320]")] = None,
    batch: Batch = None,
    device: Device = None,
    seed: Annotated[int | None, typer.Option(min=0, help="the first seed")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder; one that was begun goes on [default: runs/ablate-N]")
    ] = None,
) -> None:
    """Measure what each step from YOLO to YOLOv2 is worth on your data, with small networks."""
    from yolite.commands.ablate import ablate as measure

    options = _options(
        data__source=data, train__epochs=epochs, imgsz=imgsz, train__batch=batch, device=device, seed=seed
    )
    measure(options, words or [], seeds, out)


def _complain(text: str) -> int:
    """Print one plain sentence on stderr; return the exit status 2."""
    rank = os.environ.get("RANK", "0")
    who = "" if rank == "0" else f"process {rank}: "
    print(f"error: {who}{' '.join(text.split())}", file=sys.stderr)
    return 2


def _run(arguments: list[str]) -> int:
    """Run one command; return its exit status."""
    for place, word in enumerate(arguments):
        if not word or (word.startswith("--") and word.endswith("=")):
            flag = word.rstrip("=") or " ".join(arguments[max(0, place - 1) : place]) or "the command"
            return _complain(f"{flag} was given an empty value: give one, or leave it out")
    if arguments and not arguments[0].startswith("-"):
        verbs = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
        if arguments[0] not in verbs:
            hint = nearest(arguments[0], verbs)
            return _complain(f"there is no command {arguments[0]!r}{hint}: it is one of {', '.join(verbs)}")
    status = app(arguments or ["--help"], prog_name="yolite", standalone_mode=False)
    return status if isinstance(status, int) else 0


def _terminate(*_: object) -> NoReturn:
    print("terminated", file=sys.stderr)
    sys.exit(143)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status of the contract (0, 1, 2, 130 or 143)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold bytes that are no text
    debug = "--debug" in arguments
    if threading.current_thread() is threading.main_thread():
        # an exception, so that half-made files are cleared away; training has a handler of its own
        signal.signal(signal.SIGTERM, _terminate)
    arguments = [word for word in arguments if word != "--debug"]
    try:
        return _run(arguments)
    except UserError as error:
        if debug:
            raise
        return _complain(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        # what no reader or writer has a sentence of its own for: mostly permissions
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _complain(
            f"{where}{error.strerror or error}: check the path, its permissions and the space that is left"
        )
    except Exception as error:
        # typer's own complaints (unknown option, missing argument) carry a message made for people
        if debug or not hasattr(error, "format_message"):
            raise
        return _complain(error.format_message())


def console_script() -> None:
    """Entry point of the ``yolite`` command."""
    raise SystemExit(main())
