"""Just enough of RFC 6455 for Runware's clients: text frames, ping, close; the server side."""

from __future__ import annotations

import base64
import hashlib
import struct
import threading

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_value(key: str) -> str:
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


class Connection:
    """One upgraded connection; `send` may be called from any thread."""

    def __init__(self, reader, writer) -> None:
        self._reader, self._writer = reader, writer
        self._lock = threading.Lock()

    def send(self, text: str) -> None:
        self._frame(0x1, text.encode())

    def _frame(self, opcode: int, data: bytes) -> None:
        if len(data) < 126:
            head = struct.pack(">BB", 0x80 | opcode, len(data))
        elif len(data) < 65536:
            head = struct.pack(">BBH", 0x80 | opcode, 126, len(data))
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 127, len(data))
        with self._lock:
            self._writer.write(head + data)
            self._writer.flush()

    def receive(self) -> str | None:
        """The next text message, or None once the peer has gone."""
        parts = b""
        while True:
            head = self._reader.read(2)
            if len(head) < 2:
                return None
            final, opcode, length = head[0] & 0x80, head[0] & 0x0F, head[1] & 0x7F
            if length == 126:
                (length,) = struct.unpack(">H", self._reader.read(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self._reader.read(8))
            mask = self._reader.read(4) if head[1] & 0x80 else bytes(4)
            data = bytes(b ^ mask[i % 4] for i, b in enumerate(self._reader.read(length)))
            if opcode == 0x8:
                self._frame(0x8, data[:2])
                return None
            if opcode == 0x9:
                self._frame(0xA, data)
            elif opcode in (0x0, 0x1, 0x2):
                parts += data
                if final:
                    return parts.decode()
