"""The program behind the server: pictures in, boxes out, and a page for people."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import BaseModel
from starlette.datastructures import UploadFile as Uploaded
from starlette.formparsers import MultiPartException

from yolite import __version__
from yolite.data.images import ImageError, decode
from yolite.defaults import CONF
from yolite.result import Result
from yolite.serving.batcher import Batcher
from yolite.serving.guard import Guard, Limits
from yolite.structures import Detections

MOST_IMAGES = 16
"""Most pictures in one request."""
DECODERS = 2
"""Pictures decoded at once, over all requests: a few kB can become 150 MB."""


class Detection(BaseModel):
    """One box, in px of the picture."""

    label: int
    name: str
    score: float
    box: list[float]


class Found(BaseModel):
    """What was found on one picture, or why it could not be read."""

    path: str
    width: int
    height: int
    error: str | None
    detections: list[Detection]


class Answer(BaseModel):
    """One entry a picture, in the order they were sent: detect's JSON."""

    images: list[Found]


@dataclass(frozen=True)
class Serving:
    """What the program works with.

    Attributes:
        batcher: The detector.
        names: Class names.
        weights: What was given as --weights.
        limits: What is let through.
        decoders: Lets through `DECODERS` at a time.
    """

    batcher: Batcher
    names: list[str]
    weights: str
    limits: Limits
    decoders: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(DECODERS))


async def _pictures(request: Request) -> list[tuple[str, bytes]]:
    """Return names and contents of the pictures in a request: the files of a form, or the body itself.

    Raises:
        HTTPException: there is none, or there are too many.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        body = await request.body()
        found = [("picture", body)] if body else []
    else:
        try:
            async with request.form(max_files=MOST_IMAGES, max_fields=MOST_IMAGES) as form:
                sent = [value for _, value in form.multi_items() if isinstance(value, Uploaded)]
                found = [(file.filename or "picture", await file.read()) for file in sent]
        except (HTTPException, MultiPartException) as error:
            raise HTTPException(400, f"the form cannot be read: {getattr(error, 'detail', error)}") from None
    if not found:
        raise HTTPException(400, "no picture came: send one as the body, or several as files of a form")
    return found


async def _found(serving: Serving, name: str, data: bytes, conf: float) -> Result:
    """Decode one picture beside the others, and wait for its boxes."""

    def prepare() -> Future[Detections]:
        return serving.batcher.submit(decode(data, serving.limits.pixels)[0], conf)

    try:
        async with serving.decoders:
            waiting = await asyncio.to_thread(prepare)
        return Result(name, await asyncio.wrap_future(waiting), serving.names, None, None)
    except ImageError as error:
        none = torch.zeros(0)
        return Result(name, Detections(torch.zeros(0, 4), none, none.long(), (0, 0)), serving.names, str(error), None)


def _metrics(guard: Guard, batcher: Batcher) -> str:
    """Return the counters in Prometheus' text format."""
    lines = ["# TYPE yolite_requests_total counter"]
    lines += [f'yolite_requests_total{{status="{status}"}} {n}' for status, n in sorted(guard.statuses.items())]
    lines += ["# TYPE yolite_requests_in_progress gauge", f"yolite_requests_in_progress {guard.busy}"]
    for name, value in (("images", batcher.pictures), ("batches", batcher.batches)):
        lines += [f"# TYPE yolite_{name}_total counter", f"yolite_{name}_total {value}"]
    lines.append("# TYPE yolite_seconds_total counter")
    lines += [f'yolite_seconds_total{{step="{step}"}} {value:.6f}' for step, value in batcher.seconds().items()]
    return "\n".join(lines) + "\n"


def make_app(serving: Serving) -> Guard:
    """Return the ASGI program."""
    app = FastAPI(title="yolite", version=__version__, description=f"A detector: {', '.join(serving.names[:20])}",
                  docs_url=None, redoc_url=None)  # their pages load scripts from elsewhere # fmt: skip
    guard = Guard(app, serving.limits)
    pages = files("yolite.serving")

    @app.post("/detect", response_model=Answer, responses={
        400: {"description": "no picture that can be read"}, 408: {"description": "too slow"},
        413: {"description": "too large"}, 429: {"description": "too many requests at once"},
    }, openapi_extra={"requestBody": {"required": True, "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {"schema": {"type": "object", "properties": {
            "images": {"type": "array", "items": {"type": "string", "format": "binary"}}}}},
    }}})  # fmt: skip
    async def detect(
        request: Request, conf: Annotated[float, Query(ge=0, le=1, description="least score")] = CONF
    ) -> Mapping[str, Any]:
        """Detect on one picture (the body) or several (files of a form)."""
        given = await _pictures(request)
        results = await asyncio.gather(*(_found(serving, name, data, conf) for name, data in given))
        if all(result.error is not None for result in results):
            raise HTTPException(400, f"{results[0].source}: {results[0].error}")
        return {"images": [result.to_json() for result in results]}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Say that the server answers, and with what."""
        return {"status": "ok", "weights": Path(serving.weights).name, "names": serving.names, "yolite": __version__}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        """Return counters for Prometheus."""
        return _metrics(guard, serving.batcher)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> str:
        """Return the page on which a picture is dropped."""
        return pages.joinpath("page.html").read_text(encoding="utf-8")

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> str:
        """Return the page that shows /openapi.json."""
        return pages.joinpath("docs.html").read_text(encoding="utf-8")

    return guard
