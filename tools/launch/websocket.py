"""A websocket client (RFC 6455) just large enough for ComfyUI's `/ws`: text, binary, ping, close.

It exists so that `run.py` can show live progress before anything but the standard library is installed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import struct
from urllib.parse import urlsplit

_ACCEPT_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class WebSocketClosed(ConnectionError):
    """The other side has gone."""


class WebSocket:
    """One open connection. `receive()` gives str for text and bytes for binary messages."""

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=timeout)
        self._buffer = bytearray()  # bytes that arrived and belong to no complete frame yet
        self._message, self._kind = b"", None  # a fragmented message in progress
        key = base64.b64encode(os.urandom(16)).decode("ascii")
        path = parts.path + ("?" + parts.query if parts.query else "")
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode("ascii")
        )
        while b"\r\n\r\n" not in self._buffer:
            self._receive_bytes()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        expected = base64.b64encode(hashlib.sha1((key + _ACCEPT_SUFFIX).encode("ascii")).digest()).decode(
            "ascii"
        )
        if status.split(" ")[1:2] != ["101"] or headers.get("sec-websocket-accept") != expected:
            self._socket.close()
            raise ConnectionError(f"{url} did not answer as a websocket: {status!r}")

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Wait for the next message; TimeoutError after `timeout` seconds of silence (None waits for ever).

        A time-out in the middle of a message loses nothing: the next call goes on where this one stopped.
        """
        self._socket.settimeout(timeout)
        while True:
            frame = self._take_frame()
            if frame is None:
                self._receive_bytes()
                continue
            final, opcode, payload = frame
            if opcode == PING:
                self._send_frame(PONG, payload)
            elif opcode == CLOSE:
                raise WebSocketClosed("ComfyUI closed the connection.")
            elif opcode in (TEXT, BINARY, CONTINUATION):
                self._kind = self._kind or opcode
                self._message += payload
                if final:
                    message, kind = self._message, self._kind
                    self._message, self._kind = b"", None
                    return message.decode("utf-8") if kind == TEXT else message

    def send(self, text: str) -> None:
        self._send_frame(TEXT, text.encode("utf-8"))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._send_frame(CLOSE, struct.pack("!H", 1000))
        self._socket.close()

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _receive_bytes(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise WebSocketClosed("The connection to ComfyUI broke.")
        self._buffer += data

    def _take_frame(self) -> tuple[bool, int, bytes] | None:
        """Cut one whole frame off the buffer, or return None while part of it is still on its way."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        start, length = 2, buffer[1] & 0x7F
        if length >= 126:
            size, layout = (2, "!H") if length == 126 else (8, "!Q")
            start += size
            if len(buffer) < start:
                return None
            (length,) = struct.unpack_from(layout, buffer, 2)
        if len(buffer) < start + length:
            return None
        final, opcode = bool(buffer[0] & 0x80), buffer[0] & 0x0F
        payload = bytes(buffer[start : start + length])
        del buffer[: start + length]
        return final, opcode, payload

    def _send_frame(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)  # RFC 6455 section 5.3: every client frame is masked
        length = len(payload)
        if length < 126:
            header = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        elif length < 1 << 16:
            header = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
        else:
            header = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, length)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self._socket.sendall(header + mask + masked)
