"""The emulator's HTTP side: one loopback port for both services, the pictures, and faults on the wire."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np

from . import pictures
from .bfl import Bfl
from .book import Book, Item, Job
from .faults import Faults
from .runware import Runware
from .websocket import Connection, accept_value

HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
Painter = Callable[[str, int, int, int], np.ndarray]


class Emulator:
    """`with Emulator() as emulator:` serves `emulator.url`; counters in `emulator.book`, faults in `.faults`.

    painter(prompt, width, height, seed) -> uint8 [height, width, 3] draws the pictures.
    keys: the API keys it accepts; None accepts any key of 8 characters or more.
    """

    def __init__(
        self,
        seconds_per_job: float = 0.05,
        seconds_between_items: float = 0.0,
        *,
        painter: Painter = pictures.draw_pattern,
        keys: set[str] | None = None,
        port: int = 0,
    ) -> None:
        self.book = Book(seconds_per_job, seconds_between_items)
        self.faults = Faults()
        self.keys = keys
        self.painter = painter
        self.traps: list[dict[str, str]] = []
        self.seen: list[bytes] = []
        self.active = 0
        self.most_active = 0
        self._dead_links: set[str] = set()
        self._rendered: dict[str, bytes] = {}
        handler = type("Handler", (_Handler,), {"emulator": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.runware = Runware(self.book, self.faults, self.url, self.render)
        self.bfl = Bfl(self.book, self.faults, self.url, self.render)

    def __enter__(self) -> Emulator:
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def accepted(self) -> int:
        return self.book.accepted

    def state(self) -> dict:
        """What a reader outside this process may ask for at /emulator/state."""
        return {
            "emulator": "This is Kleinod's emulator, neither Runware nor BFL.",
            "accepted": self.book.accepted,
            "billed_usd": round(self.book.billed_usd, 6),
            "images": self.book.images,
            "submissions": self.book.submissions,
            "conflicts": self.book.conflicts,
            "jobs": {job.id: job.service for job in self.book.jobs.values()},
        }

    def knows(self, key: str) -> bool:
        return len(key) >= 8 if self.keys is None else key in self.keys

    def render(self, job: Job, item: Item) -> bytes:
        """The bytes of one result, drawn once."""
        if item.id not in self._rendered:
            task = job.request
            prompt = task.get("positivePrompt") or task.get("prompt") or ""
            width, height = task.get("width") or 1024, task.get("height") or 1024
            if self.faults.take("other_size"):
                width, height = width + 16, height - 16
            form = task.get("outputFormat") or task.get("output_format") or "JPG"
            variant = next((v for v in ("rgba", "palette", "exif", "grey16") if self.faults.take(v)), "")
            self._rendered[item.id] = pictures.encode(
                self.painter(prompt, width, height, item.seed), form, variant
            )
        return self._rendered[item.id]


class _Handler(BaseHTTPRequestHandler):
    emulator: Emulator
    protocol_version = "HTTP/1.1"
    server_version = "KleinodEmulator/1 (neither Runware nor BFL)"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *arguments: object) -> None:
        """Silence: tests read the counters instead."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, BrokenPipeError):
            self.close_connection = True

    # --- plumbing -------------------------------------------------------------------------------------------

    def _json(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        self._bytes(status, json.dumps(body).encode(), "application/json", headers)

    def _bytes(self, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def _drop(self, reset: bool = False) -> None:
        """Close the connection without an answer, as a dying proxy would."""
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RDWR) if not reset else self.connection.close()

    def _drip(self, data: bytes) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for index in range(len(data)):
            self.wfile.write(data[index : index + 1])
            self.wfile.flush()
            time.sleep(0.1)

    def _read(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        head = f"{self.command} {self.path}\n{self.headers}"
        self.emulator.seen.append(head.encode() + b"\n" + data[:4096])
        return data

    # --- routes ---------------------------------------------------------------------------------------------

    def do_POST(self) -> None:
        emulator = self.emulator
        data = self._read()
        path = urlsplit(self.path).path
        if path.startswith("/trap"):
            return self._trap()
        with emulator.book.lock:
            emulator.active += 1
            emulator.most_active = max(emulator.most_active, emulator.active)
        try:
            if path == "/v1":
                self._runware(data)
            elif path.startswith(("/v1/", "/proxy/bfl/")):
                self._bfl_submit(path, data)
            else:
                self._json(404, {"detail": "Not Found"})
        finally:
            with emulator.book.lock:
                emulator.active -= 1

    def do_GET(self) -> None:
        self._read()
        parts = urlsplit(self.path)
        if parts.path == "/v1" and self.headers.get("Upgrade", "").lower() == "websocket":
            self._websocket()
        elif parts.path.startswith("/trap"):
            self._trap()
        elif parts.path == "/v1/get_result":
            self._bfl_poll(parse_qs(parts.query).get("id", [""])[0])
        elif parts.path == "/v1/credits":
            self._json(*self.emulator.bfl.credits()) if self._bfl_key() else self._no_bfl_key()
        elif parts.path.startswith("/picture/"):
            self._picture(parts.path, parts.query)
        elif parts.path == "/emulator/state":
            self._json(200, self.emulator.state())
        else:
            self._json(404, {"detail": "Not Found"})

    def _trap(self) -> None:
        """Where redirects lead: records whether a key came along."""
        self.emulator.traps.append({name.lower(): value for name, value in self.headers.items()})
        self._json(200, {"data": [], "status": "Ready"})

    # --- faults on the wire ---------------------------------------------------------------------------------

    def _refused(self, key_ok: bool) -> bool:
        """Answers a submit that is not accepted. True when it did."""
        take = self.emulator.faults.take
        if not key_ok or take("refuse_401"):
            self._json(
                401,
                {
                    "errors": [{"code": "invalidApiKey", "message": "Invalid API key."}],
                    "detail": "Not authenticated",
                },
            )
        elif take("refuse_402"):
            self._json(
                402,
                {
                    "errors": [{"code": "insufficientCredits", "message": "Insufficient credits."}],
                    "detail": "Insufficient credits",
                },
            )
        elif take("refuse_403"):
            self._json(
                403,
                {
                    "errors": [{"code": "forbidden", "message": "Key lacks the permission."}],
                    "detail": "Forbidden",
                },
            )
        elif take("refuse_429"):
            self._json(
                429,
                {"errors": [{"code": "rateLimitExceeded", "message": "Slow down."}]},
                {"Retry-After": "1"},
            )
        elif take("refuse_503"):
            self._json(503, {"errors": [{"code": "serviceUnavailable", "message": "Busy."}]})
        elif take("refuse_500_error"):
            self._json(
                500, {"errors": [{"code": "internalServerError", "message": "Oops."}], "detail": "Oops"}
            )
        elif take("refuse_html"):
            self._bytes(502, HTML, "text/html")
        elif take("redirect"):
            self._bytes(
                302,
                b"",
                "text/plain",
                {"Location": f"{self.emulator.url.replace('127.0.0.1', 'localhost')}/trap"},
            )
        elif take("drop_before_accept"):
            self._drop()
        else:
            return False
        return True

    def _answer_submit(self, status: int, body: object) -> None:
        """Sends the answer of an accepted submit, or the fault that hides it."""
        take = self.emulator.faults.take
        if take("accept_then_503"):
            self._json(
                503, {"errors": [{"code": "serviceUnavailable", "message": "Busy."}], "detail": "Busy"}
            )
        elif take("accept_then_html"):
            self._bytes(502, HTML, "text/html")
        elif take("accept_then_drop"):
            self._drop()
        elif take("accept_then_reset"):
            self._drop(reset=True)
        elif take("accept_slow_drip"):
            self._drip(json.dumps(body).encode())
        elif take("accept_huge_answer"):
            self._bytes(200, b" " * (16 << 20) + json.dumps(body).encode(), "application/json")
        else:
            self._json(status, body)

    def _poll_fault(self) -> bool:
        take = self.emulator.faults.take
        if take("poll_503"):
            self._json(503, {"detail": "Busy"})
        elif take("poll_html"):
            self._bytes(502, HTML, "text/html")
        elif take("poll_429"):
            self._json(429, {"detail": "Slow down"}, {"Retry-After": "1"})
        elif take("poll_drop"):
            self._drop()
        elif take("poll_null"):
            self._bytes(200, b"null", "application/json")
        elif take("poll_redirect"):
            self._bytes(
                302,
                b"",
                "text/plain",
                {"Location": f"{self.emulator.url.replace('127.0.0.1', 'localhost')}/trap"},
            )
        else:
            return False
        return True

    # --- Runware --------------------------------------------------------------------------------------------

    def _runware(self, data: bytes) -> None:
        try:
            tasks = json.loads(data)
        except ValueError:
            return self._json(400, {"errors": [{"code": "invalidJson", "message": "Not JSON."}]})
        tasks = tasks if isinstance(tasks, list) else [tasks]
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        for task in tasks:
            if task.get("taskType") == "authentication":
                key = task.get("apiKey", "")
        known = self.emulator.knows(key)
        dry = self.headers.get("X-Runware-Dry-Run") == "1"
        if any(task.get("taskType") == "imageInference" for task in tasks) and not dry:
            if not self._refused(known):
                before = self.emulator.book.accepted
                status, body = self.emulator.runware.answer(tasks)
                accepted = self.emulator.book.accepted > before
                self._answer_submit(status, body) if accepted else self._json(status, body)
            return
        if not known:
            return self._json(401, {"errors": [{"code": "invalidApiKey", "message": "Invalid API key."}]})
        if any(task.get("taskType") == "getResponse" for task in tasks) and self._poll_fault():
            return
        self._json(*self.emulator.runware.answer(tasks, dry))

    def _websocket(self) -> None:
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept_value(self.headers["Sec-WebSocket-Key"]))
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        connection, known = Connection(self.rfile, self.wfile), False

        def work(tasks: list[dict]) -> None:
            _, body = self.emulator.runware.answer(tasks)
            connection.send(json.dumps(body))

        while (text := connection.receive()) is not None:
            tasks = json.loads(text)
            for task in tasks:
                if task.get("taskType") == "authentication":
                    known = self.emulator.knows(task.get("apiKey", ""))
            if not known:
                connection.send(
                    json.dumps({"errors": [{"code": "invalidApiKey", "message": "Invalid API key."}]})
                )
                continue
            threading.Thread(target=work, args=(tasks,), daemon=True).start()

    # --- BFL ------------------------------------------------------------------------------------------------

    def _bfl_key(self) -> bool:
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")  # ComfyUI's proxy path
        key = self.headers.get("x-key") or self.headers.get("X-API-KEY") or bearer
        return self.emulator.knows(key or "") or self.path.startswith("/proxy/")

    def _no_bfl_key(self) -> None:
        self._json(403, {"detail": "Not authenticated"})

    def _bfl_submit(self, path: str, data: bytes) -> None:
        if self._refused(self._bfl_key()):
            return
        endpoint = path.removeprefix("/proxy/bfl/").removeprefix("/v1/").removesuffix("/generate")
        before = self.emulator.book.accepted
        status, body = self.emulator.bfl.submit(endpoint, json.loads(data or b"null"))
        accepted = self.emulator.book.accepted > before
        self._answer_submit(status, body) if accepted else self._json(status, body)

    def _bfl_poll(self, job_id: str) -> None:
        if not self._poll_fault():
            self._json(*self.emulator.bfl.poll(job_id))

    # --- pictures -------------------------------------------------------------------------------------------

    def _picture(self, path: str, query: str) -> None:
        emulator, take = self.emulator, self.emulator.faults.take
        if "authorization" in self.headers or "x-key" in self.headers:
            emulator.traps.append({name.lower(): value for name, value in self.headers.items()})
        found = emulator.book.find_item(path.rpartition("/")[2].partition(".")[0])
        if found is None:
            return self._json(404, {"detail": "Not Found"})
        job, item = found
        if job.service == "bfl" and "sig=a%2Bb%2F" not in query:
            return self._bytes(403, b"<Error>AuthenticationFailed</Error>", "application/xml")
        if take("expired"):
            emulator._dead_links.add(self.path)
        if self.path in emulator._dead_links:
            return self._bytes(403, b"<Error>Expired</Error>", "application/xml")
        if take("download_503"):
            return self._bytes(503, HTML, "text/html")
        if take("download_drop"):
            return self._drop()
        if take("download_redirect"):
            return self._bytes(302, b"", "text/plain", {"Location": f"{emulator.url}/trap"})
        if take("bomb"):
            return self._bytes(200, pictures.bomb_png(), "image/png")
        if take("svg"):
            return self._bytes(200, b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image/svg+xml")
        if take("html_as_image"):
            return self._bytes(200, HTML, "image/png")
        if take("empty_image"):
            return self._bytes(200, b"", "image/png")
        data = emulator.render(job, item)
        if take("truncated_png"):
            return self._bytes(200, data[: len(data) // 2], "image/png")
        if take("oversize") or take("lying_length"):
            return self._flood()
        if take("short_length"):
            return self._partial(data)
        if take("slow_drip"):
            return self._drip(data)
        item.deliveries += 1
        self._bytes(200, data, "image/png")

    def _flood(self) -> None:
        """A body without a stated length that never ends."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.end_headers()
        block = b"\x89PNG\r\n\x1a\n" + bytes(1 << 20)
        for _ in range(256):
            self.wfile.write(block)

    def _partial(self, data: bytes) -> None:
        """States more bytes than it sends."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self._drop()
