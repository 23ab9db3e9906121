"""HTTP/1.1 on bare sockets, with every way an answer can go wrong in one value.

`http.server` would refuse to send most of this; here a turn decides about each byte.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

BLOCK = 1 << 16
REASONS = {200: "OK", 201: "Created", 202: "Accepted", 302: "Found", 400: "Bad Request", 503: "Unavailable"}
BOM = b"\xef\xbb\xbf"


@dataclass
class Exchange:
    """One request as it was read, and the answer the service means to give."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    status: int = 200
    answer: Any = None  # bytes, or what becomes JSON
    kind: str = "application/json"

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def raw(self) -> bytes:
        """Everything the client said, for a hunt."""
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return f"{self.method} {self.target}\r\n{head}\r\n".encode() + self.body


@dataclass(frozen=True)
class Turn:
    """What becomes of one request and its answer.

    work: the service does what is asked (a submit is accepted and billed) before the fault strikes.
    hang_up: the connection ends after this many bytes of the request's body were read; nothing is accepted.
    read_rate: bytes a second at which the request's body is read, 0 for at once.
    status, body, headers, kind: replace those of the answer. `body` may be bytes, anything JSON, or a
    function of the Exchange that returns either.
    gzipped, bom, chunked: how the body travels. stated: a Content-Length that need not be true.
    delay: seconds of silence before the answer. drip: seconds between its bytes.
    cut: the connection ends after this many bytes of the answer, head included. reset: with a reset.
    """

    work: bool = True
    hang_up: int | None = None
    read_rate: float = 0.0
    status: int | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = ""
    gzipped: bool = False
    bom: bool = False
    chunked: bool = False
    stated: int | None = None
    delay: float = 0.0
    drip: float = 0.0
    cut: int | None = None
    reset: bool = False


class Gone(Exception):
    """The other side has left, or this one hung up."""


class Line:
    """One accepted connection: reads requests, writes answers."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._left = b""

    def close(self, reset: bool = False) -> None:
        try:
            if reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()

    def read_head(self) -> Exchange:
        """Request line and headers (names in lower case). Gone when the client has no more to say."""
        while b"\r\n\r\n" not in self._left:
            self._left += self._receive()
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        return Exchange(method, target, {name.strip().lower(): value.strip() for name, _, value in pairs})

    def read_body(self, head: Exchange, turn: Turn) -> bytes:
        """The whole body, as fast as the turn lets it in. Gone when it does not come whole."""
        if head.headers.get("transfer-encoding", "").lower() == "chunked":
            return self._read_chunks()
        size = int(head.headers.get("content-length") or 0)
        stop = size if turn.hang_up is None else min(size, turn.hang_up)
        block = max(1, int(turn.read_rate / 20)) if turn.read_rate else BLOCK
        while len(self._left) < stop:
            self._left += self._receive(min(block, stop - len(self._left)))
            if turn.read_rate:
                time.sleep(block / turn.read_rate)
        if turn.hang_up is not None:
            raise Gone("hung up")
        body, self._left = self._left[:size], self._left[size:]
        return body

    def _read_chunks(self) -> bytes:
        body = b""
        while True:
            size = int(self._line().split(b";")[0], 16)
            while len(self._left) < size + 2:
                self._left += self._receive()
            body, self._left = body + self._left[:size], self._left[size + 2 :]
            if not size:
                return body

    def _line(self) -> bytes:
        while b"\r\n" not in self._left:
            self._left += self._receive()
        line, _, self._left = self._left.partition(b"\r\n")
        return line

    def _receive(self, size: int = BLOCK) -> bytes:
        try:
            data = self._socket.recv(size)
        except OSError:
            data = b""
        if not data:
            raise Gone("the client left")
        return data

    def write(self, exchange: Exchange, turn: Turn, pause: Callable[[float], None]) -> None:
        """The answer, as the turn spoils it. Gone when the turn ended the connection."""
        pause(turn.delay)
        data = _compose(exchange, turn)
        whole = turn.cut is None
        data = data if whole else data[: turn.cut]
        try:
            if turn.drip:
                for index in range(len(data)):
                    self._socket.sendall(data[index : index + 1])
                    pause(turn.drip)
            else:
                self._socket.sendall(data)
        except OSError:
            raise Gone("the client left") from None
        if not whole or turn.reset or turn.stated is not None:
            self.close(turn.reset)
            raise Gone("hung up")


def _compose(exchange: Exchange, turn: Turn) -> bytes:
    answer = exchange.answer if turn.body is None else turn.body
    answer = answer(exchange) if callable(answer) else answer
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    body = BOM + body if turn.bom else body
    body = gzip.compress(body) if turn.gzipped else body
    status = turn.status or exchange.status
    headers = {"Content-Type": turn.kind or exchange.kind, "Server": "raw"}
    if turn.gzipped:
        headers["Content-Encoding"] = "gzip"
    if turn.chunked:
        headers["Transfer-Encoding"] = "chunked"
        pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    else:
        headers["Content-Length"] = str(len(body) if turn.stated is None else turn.stated)
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Answer')}"]
    lines += [f"{name}: {value}" for name, value in (headers | dict(turn.headers)).items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
