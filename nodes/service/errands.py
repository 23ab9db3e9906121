"""What is sent out about a finished picture: the picture itself to an address, then word to a webhook.

Each is tried several times, also after a restart, and never holds up the making of pictures. A webhook is
sent until it is taken, so at least once: where the answer was lost, or this process died before it was
written down, it is sent again. Its header `webhook-id`, as Standard Webhooks name it, is the same each time
and no other's, by which a receiver that keeps it takes each once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .background import Background
from .book import Book, Picture
from .dispatcher import UPLOAD, WEBHOOK
from .fetching import Fetcher, NotReached
from .picture_data import MIME
from .store import Store
from .terms import Terms
from .waiting import wait_for_event

logger = logging.getLogger("kleinod.api")
WEBHOOK_ID = "webhook-id"
PAUSES = (2.0, 10.0, 60.0, 300.0, 1800.0)
PARTING_SECONDS = 3.0
UPLOAD_PAUSES = (1.0, 3.0)
"""A client that waits for its answer waits for the upload, too."""

Message = Callable[[Picture], tuple[bytes, dict[str, str]]]


class Errands(Background):
    """message: the body and headers of a picture's webhook. over: told of a job whose upload ended."""

    def __init__(
        self,
        book: Book,
        store: Store,
        fetcher: Callable[[], Fetcher],
        message: Message,
        over: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._book, self._store, self._fetcher = book, store, fetcher
        self._message, self._over = message, over

    async def close(self) -> None:
        """What is being sent is brought to its end first, for a while: an orderly end repeats nothing."""
        if self._loop is not None:
            self._loop.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=PARTING_SECONDS)
        await super().close()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            # What could not be written down is tried, and told, once more.
            for picture in await self._write(lambda: self._book.due_errands(self._book.now())):
                if picture.id not in self._tasks:
                    self._begin(picture.id, self._do(picture))
            first = await self._write(self._book.next_errand)
            pause = 60.0 if first is None else min(60.0, max(0.2, first - self._book.now()))
            await wait_for_event(self._woken, pause)

    async def _do(self, picture: Picture) -> None:
        job = self._book.read_job(picture.job)
        if job is None:
            await self._write(lambda: self._book.set_errand(picture.id, ""))
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
                headers = {**headers, WEBHOOK_ID: picture.id}
                await self._fetcher().send("POST", terms.webhook, body, headers)
        except NotReached as error:
            pauses = UPLOAD_PAUSES if upload else PAUSES
            if picture.tries < len(pauses):
                again = self._book.now() + pauses[picture.tries]
                await self._write(
                    lambda: self._book.set_errand(picture.id, picture.errand, again, picture.tries + 1)
                )
                return
            logger.warning(
                "The %s of a picture was given up after %d tries.", picture.errand, picture.tries + 1
            )
            if upload:
                words = f"The picture could not be put to uploadEndpoint ({error}); it is kept here."
                await self._write(lambda: self._book.note_upload(picture.id, words))
        await self._write(
            lambda: self._book.set_errand(picture.id, WEBHOOK if upload and terms.webhook else "")
        )
        if upload:
            self._over(picture.job)
