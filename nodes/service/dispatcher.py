"""Takes waiting pictures to the executor, fairly between keys, and brings results home.

Only a few are submitted at once, so that the page's own jobs wait for no more than those. The key that was
served least comes next.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from .background import Background
from .book import MAX_ATTEMPTS, Book, Picture
from .drawing import Drawing
from .executor import Cancelled, Executor, RunFailed, Unreachable
from .graph import build_graph, name_picture
from .picture_data import encode_result
from .store import Store
from .terms import Terms

logger = logging.getLogger("kleinod.api")
WEBHOOK, UPLOAD = "webhook", "upload"
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)


class Dispatcher(Background):
    """over: called with a job's id whenever one of its pictures is over. keep_seconds: of results. judge:
    whether a picture is not to be called safe, asked in a thread.
    """

    def __init__(
        self,
        book: Book,
        store: Store,
        executor: Executor,
        keep_seconds: Callable[[], float],
        over: Callable[[str], None],
        judge: Callable[[bytes], bool] = lambda data: False,
    ) -> None:
        super().__init__()
        self._book, self._store, self._executor = book, store, executor
        self._keep_seconds, self._over, self._judge = keep_seconds, over, judge
        self._served: dict[int, int] = {}
        self._pauses = 0
        self.progress: dict[str, float] = {}
        self.seconds = 0.0

    async def close(self) -> None:
        """Stop; what runs is left to the executor and will be asked for again by the next start."""
        await super().close()
        await self._executor.close()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            while len(self._tasks) < self._executor.slots:
                picture = await self._write(self._take)
                if picture is None:
                    break
                self._begin(picture.id, self._make(picture))
            await self._woken.wait()
            if self._pauses:
                await asyncio.sleep(_PAUSES[min(self._pauses, len(_PAUSES)) - 1])

    def _take(self) -> Picture | None:
        keys = self._book.waiting_keys()
        if not keys:
            return None
        # A key that was away does not make up for the time.
        floor = min(self._served.get(key, 0) for key in keys)
        for key in keys:
            self._served.setdefault(key, max(floor, max(self._served.values(), default=0) - 1))
        key = min(keys, key=lambda one: (self._served[one], one))
        self._served[key] += 1
        return self._book.take(key)

    def _end(self, name: str, done: asyncio.Task[None]) -> None:
        self.progress.pop(name, None)
        super()._end(name, done)

    async def _make(self, picture: Picture) -> None:
        try:
            await self._make_once(picture)
            self._pauses = 0
        except Unreachable as error:
            self._pauses += 1
            if picture.attempts >= MAX_ATTEMPTS and self._pauses < len(_PAUSES):
                await self._fail(picture, "noAvailableServer", "The machine that draws was lost three times.")
            else:
                logger.debug("A picture of the API waits: %s", error)
                await self._write(lambda: self._book.put_back(picture.id))
        except Cancelled:
            await self._fail(picture, "taskCancelled", "The task was cancelled at ComfyUI's page.")
        except RunFailed as error:
            words = str(error) if error.told else "The inference failed; the server's log says more."
            await self._fail(picture, "inferenceError", words)
        except OSError as error:
            words = error.strerror or type(error).__name__
            logger.error("A result of the API cannot be kept: %s", words)
            await self._fail(picture, "serviceUnavailable", "The server cannot store the result now.")
        except asyncio.CancelledError:
            raise
        except Exception:
            await self._fail(picture, "inferenceError", "The inference failed; the server's log says more.")
            raise

    async def _make_once(self, picture: Picture) -> None:
        drawing = Drawing.from_json(picture.drawing)
        job = self._book.read_job(picture.job)
        if job is None:
            return
        terms = Terms.from_json(job.terms)
        files = {}
        for reference in (*drawing.references, *([drawing.mask] if drawing.mask else [])):
            data = await asyncio.to_thread(self._store.read_input, reference)
            if data is None:
                raise RunFailed("A reference picture is no longer there.", told=True)
            files[name_picture(reference)] = data
        started = time.monotonic()

        def note(share: float) -> None:
            self.progress[picture.id] = share

        await self._executor.submit(picture.id, build_graph(drawing, picture.id), files)
        drawn = await self._executor.watch(picture.id, note)
        seconds = time.monotonic() - started
        size = (drawing.width, drawing.height)
        data = await asyncio.to_thread(encode_result, drawn, size, terms.form, terms.quality)
        flagged = terms.check and await asyncio.to_thread(self._judge, data)
        file = await asyncio.to_thread(self._store.keep_result, picture.id, data)
        errand = UPLOAD if terms.upload else WEBHOOK if terms.webhook else ""
        expires = self._book.now() + (terms.ttl or self._keep_seconds())
        await self._write(
            lambda: self._book.finish(picture.id, file, size, seconds, expires, errand, flagged)
        )
        self.seconds += seconds
        self._over(picture.job)

    async def _fail(self, picture: Picture, code: str, words: str) -> None:
        def write() -> None:
            job = self._book.read_job(picture.job)
            webhook = bool(job and Terms.from_json(job.terms).webhook)
            self._book.fail(picture.id, code, words, WEBHOOK if webhook else "")

        await self._write(write)
        self._over(picture.job)
