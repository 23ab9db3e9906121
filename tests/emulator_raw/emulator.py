"""The listener: a thread a connection, a turn a request."""

from __future__ import annotations

import socket
import threading
from collections import defaultdict, deque
from typing import Any

from .bfl import Bfl
from .book import Accepted, Book, Item, Plan
from .picture import encode, read_pixels
from .runware import Runware
from .wire import Exchange, Gone, Line, Turn


def draw(job: Accepted, item: Item) -> tuple[bytes, str]:
    """(file, content type) of a finished picture."""
    request = job.request
    prompt = request.get("positivePrompt") or request.get("prompt", "")
    width, height = request.get("width") or 1024, request.get("height") or 1024
    name = str(request.get("outputFormat") or request.get("output_format") or "JPG").upper()
    return encode(read_pixels(prompt, item.seed, width, height), width, height, name)


class RawEmulator:
    """Both services on one free loopback port.

    accepted: the jobs on the bill, in order. seen: every request as it came. unfinished: requests whose
    body never came whole. leaks: picture requests that carried a key. A request that meets no turn is
    answered as the documents say.
    """

    def __init__(self, key: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.book = Book()
        self.runware = Runware(self.book, self.url, key)
        self.bfl = Bfl(self.book, self.url, key)
        self.seen: list[Exchange] = []
        self.leaks: list[Exchange] = []
        self.unfinished = 0
        self._turns: dict[str, deque[Turn]] = defaultdict(deque)
        self._lines: set[Line] = set()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> RawEmulator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self._listener.close()
        with self._lock:
            lines = list(self._lines)
        for line in lines:
            line.close()

    @property
    def accepted(self) -> list[Accepted]:
        return list(self.book.accepted)

    def script(self, occasion: str, *turns: Turn) -> None:
        """The next requests of this kind meet these turns, one each."""
        with self._lock:
            self._turns[occasion].extend(turns)

    def plan(self, *plans: Plan) -> None:
        """What becomes of the next accepted jobs, one plan each."""
        with self.book.lock:
            self.book.plans.extend(plans)

    def left(self) -> dict[str, int]:
        """Turns that no request has met yet."""
        with self._lock:
            return {occasion: len(turns) for occasion, turns in self._turns.items() if turns}

    def count(self, occasion: str) -> int:
        """How many whole requests of this kind came."""
        with self._lock:
            return sum(_name_occasion(exchange) == occasion for exchange in self.seen)

    # --- serving --------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            line = Line(connection)
            with self._lock:
                self._lines.add(line)
            threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: Line) -> None:
        try:
            while not self._closing.is_set():
                self._exchange(line)
        except (Gone, OSError, ValueError):
            pass
        finally:
            line.close()
            with self._lock:
                self._lines.discard(line)

    def _exchange(self, line: Line) -> None:
        exchange = line.read_head()
        # A body decides which kind of Runware request it is, so the turn that reads it comes by the address.
        turn = self._take(f"{_name_address(exchange)}.reading")
        try:
            exchange.body = line.read_body(exchange, turn or Turn())
        except Gone:
            with self._lock:
                self.unfinished += 1
                self.seen.append(exchange)
            raise
        turn = self._take(_name_occasion(exchange)) or Turn()
        with self._lock:
            self.seen.append(exchange)
        exchange.status, exchange.answer = self._work(exchange, turn.work)
        line.write(exchange, turn, lambda seconds: self._closing.wait(seconds) if seconds else None)

    def _take(self, occasion: str) -> Turn | None:
        with self._lock:
            turns = self._turns[occasion]
            return turns.popleft() if turns else None

    def _work(self, exchange: Exchange, work: bool) -> tuple[int, Any]:
        occasion, headers = _name_occasion(exchange), exchange.headers
        if occasion.startswith("runware."):
            bearer = headers.get("authorization", "").removeprefix("Bearer ")
            return self.runware.answer(exchange.json, bearer, work)
        key = headers.get("x-key", "")
        if occasion == "bfl.submit":
            return self.bfl.submit(exchange.path.removeprefix("/v1/"), exchange.json, key, work)
        if occasion == "bfl.poll":
            return self.bfl.poll(exchange.query.get("id", ""), key)
        if occasion == "bfl.credits":
            return self.bfl.credits(key)
        if occasion == "picture":
            return self._send_picture(exchange)
        return 404, {"detail": "Not Found"}

    def _send_picture(self, exchange: Exchange) -> tuple[int, Any]:
        if "authorization" in exchange.headers or "x-key" in exchange.headers:
            self.leaks.append(exchange)
        found = self.book.find_item(exchange.path.rpartition("/")[2].partition(".")[0])
        if found is None or (found[0].service == "bfl" and exchange.query.get("sig") != "a/b="):
            return 403, {"detail": "Forbidden"}
        data, exchange.kind = draw(*found)
        found[1].fetched += 1
        return 200, data


def _name_address(exchange: Exchange) -> str:
    path = exchange.path
    if path == "/v1" and exchange.method == "POST":
        return "runware"
    if path.startswith(("/image/", "/delivery/")):
        return "picture"
    return "bfl" if path.startswith("/v1/") else "unknown"


def _name_occasion(exchange: Exchange) -> str:
    address = _name_address(exchange)
    if address == "runware":
        tasks = exchange.json if isinstance(exchange.json, list) else [exchange.json]
        kinds = {task.get("taskType") for task in tasks if isinstance(task, dict)}
        if "imageInference" in kinds:
            return "runware.submit"
        return "runware.poll" if "getResponse" in kinds else "runware.other"
    if address == "bfl":
        name = {"/v1/get_result": "poll", "/v1/credits": "credits"}.get(exchange.path, "submit")
        return f"bfl.{name}"
    return address
