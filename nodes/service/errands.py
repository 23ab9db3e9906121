"""What is sent out about a finished picture: the picture itself to an address, then word to a webhook.

Each is tried several times, also after a restart, and never holds up the making of pictures.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from .book import Book, Picture
from .dispatcher import UPLOAD, WEBHOOK
from .fetching import Fetcher, NotReached
from .picture_data import MIME
from .store import Store
from .terms import Terms
from .waiting import wait_for_event

logger = logging.getLogger("kleinod.api")
PAUSES = (2.0, 10.0, 60.0, 300.0, 1800.0)
UPLOAD_PAUSES = (1.0, 3.0)
"""A client that waits for its answer waits for the upload, too."""

Message = Callable[[Picture], tuple[bytes, dict[str, str]]]


class Errands:
    """message: the body and headers of a picture's webhook. over: told of a job whose upload ended."""

    def __init__(
        self,
        book: Book,
        store: Store,
        fetcher: Callable[[], Fetcher],
        message: Message,
        over: Callable[[str], None],
    ) -> None:
        self._book, self._store, self._fetcher = book, store, fetcher
        self._message, self._over = message, over
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._busy: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        self._loop = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        self._wake.set()

    async def close(self) -> None:
        tasks = [task for task in (self._loop, *self._busy.values()) if task is not None]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            # What could not be written down is tried, and told, once more.
            for picture in self._book.due_errands(time.time()):
                if picture.id not in self._busy:
                    task = asyncio.get_running_loop().create_task(self._do(picture))
                    self._busy[picture.id] = task
                    task.add_done_callback(functools.partial(self._free, picture.id))
            first = self._book.next_errand()
            pause = 60.0 if first is None else min(60.0, max(0.2, first - time.time()))
            await wait_for_event(self._wake, pause)

    def _free(self, name: str, done: asyncio.Task[None]) -> None:
        self._busy.pop(name, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            logger.error("An errand of the API failed.", exc_info=error)
        self._wake.set()

    async def _do(self, picture: Picture) -> None:
        job = self._book.read_job(picture.job)
        if job is None:
            self._book.set_errand(picture.id, "")
            return
        terms = Terms.from_json(job.terms)
        upload = picture.errand == UPLOAD
        try:
            if upload:
                data = await asyncio.to_thread(self._store.read_result, picture.file)
                if data is not None:
                    headers = {"Content-Type": MIME[terms.form]}
                    await self._fetcher().send("PUT", terms.upload, data, headers)
            else:
                body, headers = self._message(picture)
                await self._fetcher().send("POST", terms.webhook, body, headers)
        except NotReached as error:
            pauses = UPLOAD_PAUSES if upload else PAUSES
            if picture.tries < len(pauses):
                self._book.set_errand(
                    picture.id, picture.errand, time.time() + pauses[picture.tries], picture.tries + 1
                )
                return
            logger.warning(
                "The %s of a picture was given up after %d tries.", picture.errand, picture.tries + 1
            )
            if upload:
                self._book.note_upload(
                    picture.id, f"The picture could not be put to uploadEndpoint ({error}); it is kept here."
                )
        self._book.set_errand(picture.id, WEBHOOK if upload and terms.webhook else "")
        if upload:
            self._over(picture.job)
