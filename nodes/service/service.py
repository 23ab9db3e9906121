"""The API as one object: keys, jobs, results and who draws them. The dialects speak through it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..base.flux2 import MAX_SEED
from ..remote.folder import make_private_folder
from .access import ApiKey, KeyBook
from .book import OPEN, RUNNING, Book, Job, Picture
from .classifier import Classifier
from .dispatcher import UPLOAD, Dispatcher
from .drawing import Drawing
from .errands import Errands
from .executor import Executor
from .fetching import Fetcher, check_address
from .links import MEDIA, PICTURE, Links
from .messages import Answer, Refusal
from .models import Kind, Model, find_model
from .picture_data import MIME, check_picture, ending_of, read_base64, shrink_for_stand_in
from .settings import ApiSettings
from .store import Store
from .terms import Terms

logger = logging.getLogger("kleinod.api")
MEDIA_SECONDS = 30 * 86400.0
_SWEEP_SECONDS = 60.0
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

Message = Callable[["Service", Job, Picture], tuple[bytes, dict[str, str]]]


@dataclass(frozen=True)
class Machine:
    """What is on this machine, asked anew each time: names of files as Klein Loader, Klein LoRA Stack and
    Klein Face Refiner list them.
    """

    models: Callable[[], list[str]]
    loras: Callable[[], list[str]]
    detectors: Callable[[], list[str]]


class Service:
    """One for each ComfyUI that answers. `folder` holds everything. Raises InputError where it cannot.

    messages: by dialect, what a webhook is told about a picture. now: the clock, by default one that does not
    jump.
    """

    def __init__(
        self,
        folder: Path,
        settings: ApiSettings,
        executor: Executor,
        machine: Machine,
        messages: Mapping[str, Message],
        now: Callable[[], float] | None = None,
    ) -> None:
        folder = make_private_folder(folder)
        self.settings, self.machine = settings, machine
        self.book = Book(folder, now)
        self.keys = KeyBook(self.book)
        self.store = Store(folder)
        self.links = Links(self.book.fact("secret", secrets.token_urlsafe(32)), self.book.now)
        self.fetcher = Fetcher(settings.reachable)
        self.classifier = Classifier(settings.classifier, settings.flagged)
        self.started = self.book.now()
        self.requests = 0
        # Which of several machines drew a picture; cluster/ knows.
        self.name_worker: Callable[[Picture], str] = lambda picture: ""
        self._messages = messages
        self._bells: dict[str, asyncio.Event] = {}
        self._executor = executor
        self.dispatcher = Dispatcher(
            self.book, self.store, executor, lambda: self.settings.keep_seconds, self._ring,
            lambda data: self.classifier(data),
        )  # fmt: skip
        self.errands = Errands(self.book, self.store, lambda: self.fetcher, self._message, self._ring)
        self._sweeper: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> int:
        """Begin to draw; how many pictures of an earlier life come first."""
        again = self.book.recover()
        self.dispatcher.start()
        self.errands.start()
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())
        return again

    def apply(self, settings: ApiSettings) -> None:
        """Other settings from now on. Raises InputError for a classifier that cannot be used."""
        classifier = self.classifier
        if (settings.classifier, settings.flagged) != (self.settings.classifier, self.settings.flagged):
            classifier = Classifier(settings.classifier, settings.flagged)
        if settings.classifier:
            classifier.check()
        self.settings, self.classifier = settings, classifier
        self.fetcher = Fetcher(settings.reachable)

    async def close(self) -> None:
        self._closing = True
        for bell in self._bells.values():
            bell.set()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        await self.errands.close()
        await self.dispatcher.close()
        self.book.close()

    # --- Who asks

    def identify(self, secret: str) -> ApiKey:
        """The key that was shown. Raises Refusal."""
        key = self.keys.find(secret) if secret else None
        if key is None:
            words = "The API key is not known here." if secret else "An API key is needed."
            raise Refusal(401, "invalidApiKey" if secret else "missingApiKey", words, "apiKey")
        return key

    def knows(self, secret: str) -> bool:
        """Whether the key that was shown is one of this service."""
        return bool(secret) and self.keys.find(secret) is not None

    def balance(self, key: ApiKey) -> float:
        """Jobs the key may still send today; a large number where it has no limit."""
        return float(max(0, key.a_day - self.book.count_today(key.id))) if key.a_day else 1_000_000.0

    # --- Jobs

    def choose_model(self, name: str, kinds: Sequence[Kind]) -> Model:
        """Raises Refusal for one that is not here."""
        files = self.machine.models()
        return find_model(name, kinds, files, self.settings.models, self.settings.stand_in)

    def find_lora(self, name: str, parameter: str) -> str:
        """The file of an AIR id, or of a listed name. Raises Refusal."""
        files = self.machine.loras()
        if self.settings.loras.get(name) in files:
            return self.settings.loras[name]
        for file in files:
            if name in (file, file.rsplit(".", 1)[0]):
                return file
        parts = re.fullmatch(r"[\w.-]+:(\d+)@(\d+)", name)
        if parts is not None:
            pattern = re.compile(rf"(?<!\d){parts[1]}\D{{1,3}}{parts[2]}(?!\d)")
            found = [file for file in files if pattern.search(file)]
            if len(found) == 1:
                return found[0]
        raise Refusal(
            400, "invalidLoraModel",
            f"The LoRA '{name[:80]}' is not on this machine: put its file into models/loras and name it by "
            "this id in the settings of the API.",
            parameter,
        )  # fmt: skip

    async def read_picture(self, key: ApiKey, text: Any, name: str) -> bytes:
        """The bytes of a picture that a request names: an address, a UUID of this API, a data URI or base64;
        opened once, so that nothing is queued that no node can read. Raises Refusal.
        """
        if not isinstance(text, str) or not text:
            raise Refusal(400, "invalidReferenceImages", f"'{name}' must be a text.", name)
        if _UUID.fullmatch(text):
            data = self._read_own(key, text.lower())
            if data is None:
                raise Refusal(400, "referenceImageNotFound", f"There is no picture '{text}' here.", name)
        elif text[:8].lower().startswith(("http://", "https://")):
            data = self._read_linked(text)
            if data is None:
                data = await self.fetcher.fetch_picture(text, name)
        else:
            data = await asyncio.to_thread(read_base64, text, name)
        await asyncio.to_thread(check_picture, data, name)
        return data

    def check_address(self, address: Any, name: str) -> str:
        return check_address(address, name, {entry.lower() for entry in self.settings.reachable})

    def _read_own(self, key: ApiKey, identity: str) -> bytes | None:
        file = self.book.find_media(key.id, identity)
        if file is not None:
            return self.store.read_input(file)
        picture = self.book.find_picture(identity)
        if picture is None or picture.key_id != key.id or not picture.file:
            return None
        return self.store.read_result(picture.file)

    def _read_linked(self, address: str) -> bytes | None:
        """The bytes of an address that this API made itself."""
        answer = self.read_result(urlsplit(address).path.rsplit("/", 1)[-1])
        return None if answer is None else answer.body

    async def keep_references(self, pictures: Sequence[bytes], stand_in: bool) -> tuple[str, ...]:
        """Names for `Drawing.references`."""
        if stand_in:
            pictures = [await asyncio.to_thread(shrink_for_stand_in, data) for data in pictures]
        try:
            return tuple([await asyncio.to_thread(self.store.keep_input, data) for data in pictures])
        except OSError:
            raise Refusal(503, "serviceUnavailable", "The server cannot store pictures now.") from None

    def accept(
        self, key: ApiKey, task: str, dialect: str, body: Any, terms: Terms, drawing: Drawing, seed: int,
        count: int,
    ) -> tuple[Job, bool]:  # fmt: skip
        """Write a job of `count` pictures down, each with a seed of its own. Raises Refusal."""
        text = json.dumps(body, sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(f"{dialect} {text}".encode("utf-8", "surrogatepass")).hexdigest()
        seeds = [seed + position for position in range(count)]
        drawings = [drawing.with_seed(one % (MAX_SEED + 1)) for one in seeds]
        job, new = self.book.accept(
            key, task, dialect, digest, terms.to_json(), drawings, seeds, self.settings.most_open
        )
        if new:
            self.dispatcher.wake()
        return job, new

    def draw_seed(self) -> int:
        return secrets.randbelow(MAX_SEED + 1)

    async def wait(self, job_id: str, seen: int = 0) -> list[Picture]:
        """The pictures of a job, once more than `seen` of them are delivered, or all."""
        while True:
            bell = self._bells.setdefault(job_id, asyncio.Event())
            pictures = self.book.pictures(job_id)
            ready = [picture for picture in pictures if is_ready(picture)]
            if len(ready) > seen or len(ready) == len(pictures):
                return ready
            if self._closing:
                raise Refusal(
                    503,
                    "serviceUnavailable",
                    "The server stops now. The task goes on when it is back: ask again.",
                )
            await bell.wait()

    async def wait_for_all(self, job_id: str) -> list[Picture]:
        count = len(self.book.pictures(job_id))
        ready: list[Picture] = []
        while len(ready) < count:
            ready = await self.wait(job_id, len(ready))
        return ready

    async def cancel(self, job_id: str) -> None:
        """End what of a job is still open."""
        for picture in self.book.pictures(job_id):
            if picture.state in OPEN:
                self.book.fail(picture.id, "taskCancelled", "The task was cancelled.")
                await self._executor.cancel(picture.id)
        self._ring(job_id)

    def progress(self, pictures: Sequence[Picture]) -> float:
        """From 0 to 1 over all pictures of a job."""
        shares = [1.0 if p.is_over else self.dispatcher.progress.get(p.id, 0.0) for p in pictures]
        return sum(shares) / max(1, len(shares))

    def cost(self, picture: Picture) -> float:
        """USD by the owner's price."""
        return round(self.settings.picture_usd + self.settings.second_usd * picture.seconds, 6)

    def _ring(self, job_id: str) -> None:
        bell = self._bells.pop(job_id, None)
        if bell is not None:
            bell.set()
        self.errands.wake()

    def _message(self, picture: Picture) -> tuple[bytes, dict[str, str]]:
        job = self.book.read_job(picture.job)
        if job is None:
            return b"{}", {}
        return self._messages[job.dialect](self, job, picture)

    # --- Results

    def result_bytes(self, picture: Picture) -> bytes | None:
        return self.store.read_result(picture.file) if picture.file else None

    def make_link(self, picture: Picture, base: str, seconds: float) -> str:
        """An address of the picture's file that works for so long."""
        ending = picture.file.rsplit(".", 1)[-1]
        return f"{self.address(base)}/results/{self.links.make(PICTURE, picture.id, seconds, ending)}"

    def make_media_link(self, media_id: str, base: str, file: str) -> str:
        name = self.links.make(MEDIA, media_id, MEDIA_SECONDS, file.rsplit(".", 1)[-1])
        return f"{self.address(base)}/results/{name}"

    def address(self, base: str) -> str:
        return self.settings.public_address.rstrip("/") or base

    def read_result(self, name: str) -> Answer | None:
        """The file behind the last part of a link, None for a link that is wrong or over."""
        found = self.links.read(name)
        if found is None:
            return None
        kind, identity = found
        if kind == MEDIA:
            rows = self.book.read("select file from media where id = ?", (identity,))
            data = self.store.read_input(rows[0]["file"]) if rows else None
        else:
            picture = self.book.find_picture(identity)
            data = self.result_bytes(picture) if picture is not None else None
        if data is None:
            return None
        mime = MIME[{"png": "PNG", "jpg": "JPG", "webp": "WEBP"}[ending_of(data)]]
        return Answer(200, data, mime, {"Cache-Control": "private, max-age=3600"})

    # --- Tidying up

    async def _sweep(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.tidy)
            except (OSError, sqlite3.Error) as error:
                logger.error("What is past its time cannot be cleared away now (%s).", error)
            await asyncio.sleep(_SWEEP_SECONDS)

    def tidy(self) -> None:
        """Drop what is past its time and, beyond the size cap, the oldest results."""
        now = self.book.now()
        for picture in self.book.expired(now):
            self.store.drop_result(picture.file)
            self.book.drop_file(picture.id)
        over = self.store.size() - self.settings.keep_bytes
        for picture in self.book.oldest_files() if over > 0 else ():
            if over <= 0:
                break
            data = self.store.read_result(picture.file)
            over -= len(data or b"")
            self.store.drop_result(picture.file)
            self.book.drop_file(picture.id)
        self.book.forget(now, self.settings.keep_seconds)
        self.store.drop_inputs(self.book.files_in_use())
        being_made = {
            row["id"] for row in self.book.read("select id from pictures where state = ?", (RUNNING,))
        }
        kept = {p.file for p in self.book.oldest_files()} | self._files_with_errands()
        self.store.drop_results(kept | being_made)

    def _files_with_errands(self) -> set[str]:
        return {row["file"] for row in self.book.read("select file from pictures where errand != ''")}


def is_ready(picture: Picture) -> bool:
    """Whether a client may be told of it: it is over, and uploaded where that was asked for."""
    return picture.is_over and picture.errand != UPLOAD
