"""What stands before the program: how many requests at once, how large, how slow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import anyio
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_DRAINED = 64 * 2**20
"""Bytes, and below seconds, of a refused upload that are read and thrown away."""
SECONDS_DRAINED = 1.0

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """What a server lets through.

    Attributes:
        concurrency: Requests with pictures at once; further ones are answered with 429.
        bytes: Of a request; larger ones are answered with 413.
        pixels: Of a picture.
        seconds: For the upload, and between requests of a connection; slower uploads are answered with 408.
    """

    concurrency: int = 16
    bytes: int = 20 * 2**20
    pixels: float = 50e6
    seconds: float = 10.0


class Refused(Exception):
    """A request that is not let through, with its HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Guard:
    """ASGI middleware: reads the body of a POST within the limits before the program sees the request.

    Args:
        program: What answers.
        limits: What is let through.

    Attributes:
        statuses: How often each HTTP status was answered.
        busy: Requests with pictures that are being worked on.
    """

    def __init__(self, program: Application, limits: Limits) -> None:
        self.program, self.limits = program, limits
        self.statuses: Counter[int] = Counter()
        self.busy = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.program(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.statuses[message["status"]] += 1
            await send(message)

        if scope["method"] != "POST":
            await self.program(scope, receive, counted)
        elif self.busy >= self.limits.concurrency:
            text = f"{self.busy} requests are being worked on: try again in a moment"
            await _drain(receive)
            await _answer(counted, 429, text)
        else:
            self.busy += 1
            try:
                body = await self._body(scope, receive)
                await self.program(scope, _replay(body, receive), counted)
            except Refused as refused:
                if refused.status == 413:
                    await _drain(receive)
                await _answer(counted, refused.status, str(refused))
            finally:
                self.busy -= 1

    async def _body(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes:
        """Read the body.

        Raises:
            Refused: it is too large, too slow, or broken off.
        """
        most = self.limits.bytes
        too_large = Refused(413, f"a request may have {most / 2**20:g} MiB")
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not stated.isdigit() or int(stated) > most:
            raise too_large
        body = bytearray()
        try:
            with anyio.fail_after(self.limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "the upload broke off")
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise too_large
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            raise Refused(408, f"an upload may take {self.limits.seconds:g} s") from None


async def _drain(receive: Receive) -> None:
    """Throw away what is left of an upload, for a while: who is hung up on while sending does not see the answer."""
    left = MOST_DRAINED
    with anyio.move_on_after(SECONDS_DRAINED):
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives a body which was read already, then what comes after it."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


async def _answer(send: Send, status: int, text: str) -> None:
    """Answer with one sentence, and end the connection: the rest of the upload is not read."""
    body = json.dumps({"detail": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
               (b"connection", b"close")]  # fmt: skip
    if status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Impatient(H11Protocol):
    """uvicorn's HTTP/1.1 that does not wait for ever for a request's first lines."""

    patience = Limits.seconds

    def connection_made(self, transport: Any) -> None:
        """Start to wait for the first request."""
        super().connection_made(transport)
        self._expect()

    def on_response_complete(self) -> None:
        """Start to wait for the next request of the connection."""
        super().on_response_complete()
        self._expect()

    def _expect(self) -> None:
        """End the connection if no further request has come by then."""
        last = self.cycle

        def check() -> None:
            if self.cycle is last and not self.transport.is_closing():
                self.transport.close()

        self.loop.call_later(self.patience, check)
