"""A ComfyUI as executor, through the same HTTP and WebSocket API that its page uses.

A run is an ordinary prompt: the page shows it, others wait for it, Cancel ends it. Events come over one
socket; the history is asked now and then, too, for those that were lost with a connection.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from .executor import Cancelled, Executor, Progress, RunFailed, Unreachable
from .graph import RESULT, SUBFOLDER
from .waiting import wait_for_event

_GLANCE_SECONDS = 3.0
_LOST_GLANCES = 3
_RECONNECT_SECONDS = 0.5
_MOST_BYTES = 256 << 20


@dataclass
class _Run:
    progress: Progress = lambda share: None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    files: frozenset[str] = frozenset()


class ComfyExecutor(Executor):
    """The ComfyUI at `address`. discard: takes a temporary file of it away that was read, if that is possible
    from here. verify: whether its certificate is checked, where it has one. heard: told of every event of a
    run, by ticket and kind.
    """

    slots = 2

    def __init__(
        self,
        address: str,
        discard: Callable[[Mapping[str, Any]], None] = lambda entry: None,
        verify: bool = True,
        heard: Callable[[str, str, Mapping[str, Any]], None] = lambda ticket, kind, data: None,
    ) -> None:
        self._address = address.rstrip("/")
        self._discard = discard
        self._ssl = None if verify else False
        self._heard = heard
        self._client = f"kleinod-api-{uuid.uuid4().hex}"
        self._runs: dict[str, _Run] = {}
        self._session: aiohttp.ClientSession | None = None
        self._listener: asyncio.Task[None] | None = None
        self._hears = asyncio.Event()

    async def submit(self, ticket: str, graph: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
        await self._listen()
        files = {name: name.removeprefix(f"{SUBFOLDER}/").removesuffix(" [temp]") for name in pictures}
        self._runs.setdefault(ticket, _Run()).files = frozenset(files.values())
        for name, data in pictures.items():
            form = aiohttp.FormData()
            file = files[name]
            form.add_field("image", data, filename=file, content_type="application/octet-stream")
            for key, value in (("type", "temp"), ("subfolder", SUBFOLDER), ("overwrite", "true")):
                form.add_field(key, value)
            status, _ = await self._call("POST", "/upload/image", data=form)
            if status != 200:
                raise RunFailed("A reference picture could not be handed to ComfyUI.")
        body = {"prompt": graph, "client_id": self._client, "prompt_id": ticket}
        status, answer = await self._call("POST", "/prompt", json=body)
        if status == 400:
            self._forget(ticket)
            raise RunFailed(_read_refusal(answer), told=True)
        if status != 200 or not isinstance(answer, dict) or answer.get("prompt_id") != ticket:
            raise Unreachable(f"ComfyUI answered HTTP {status}.")

    async def watch(self, ticket: str, progress: Progress) -> bytes:
        run = self._runs.setdefault(ticket, _Run())
        run.progress = progress
        missing = 0
        try:
            while True:
                await wait_for_event(run.over, _GLANCE_SECONDS)
                entry = await self._history(ticket)
                if entry is not None:
                    return await self._collect(ticket, entry)
                missing = 0 if await self._is_queued(ticket) else missing + 1
                if missing >= _LOST_GLANCES:
                    raise Cancelled("It was taken out of ComfyUI's queue.")
                run.over.clear()
        finally:
            self._forget(ticket)

    def _forget(self, ticket: str) -> None:
        """Drop a run, and its references where no other run has the same."""
        run = self._runs.pop(ticket, None)
        still = {file for other in self._runs.values() for file in other.files}
        for file in (run.files if run else frozenset()) - still:
            self._discard({"filename": file, "subfolder": SUBFOLDER, "type": "temp"})

    async def cancel(self, ticket: str) -> None:
        with suppress(Unreachable):
            await self._call("POST", "/queue", json={"delete": [ticket]})
            await self._call("POST", "/interrupt", json={"prompt_id": ticket})

    async def close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.cancel()
            with suppress(asyncio.CancelledError):
                await listener
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _call(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        if self._session is None:
            # Neither cookies nor a proxy of the environment: it is this machine, or one the owner named.
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=120)
            )
        try:
            async with self._session.request(
                method, self._address + path, ssl=self._ssl if self._ssl is False else True, **more
            ) as answer:
                raw = await answer.read()
                try:
                    return answer.status, json.loads(raw) if raw else None
                except ValueError:
                    return answer.status, raw
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise Unreachable(f"ComfyUI does not answer ({type(error).__name__}).") from None

    async def _history(self, ticket: str) -> dict[str, Any] | None:
        _, answer = await self._call("GET", f"/history/{ticket}")
        entry = answer.get(ticket) if isinstance(answer, dict) else None
        return entry if isinstance(entry, dict) else None

    async def _is_queued(self, ticket: str) -> bool:
        _, answer = await self._call("GET", "/queue")
        lists = [answer.get(name) or [] for name in ("queue_running", "queue_pending")]
        return any(item[1] == ticket for items in lists for item in items)

    async def _collect(self, ticket: str, entry: Mapping[str, Any]) -> bytes:
        try:
            status = entry.get("status") or {}
            if not status.get("completed"):
                _raise_failure(status.get("messages") or [])
            images = (entry.get("outputs") or {}).get(RESULT, {}).get("images") or []
            if not images:
                raise RunFailed("The run gave no picture.")
            image = images[0]
            query = {name: str(image.get(name, "")) for name in ("filename", "subfolder", "type")}
            code, data = await self._call("GET", "/view", params=query)
            if code != 200 or not isinstance(data, bytes):
                raise RunFailed("The picture of the run is gone.")
            return data
        finally:
            # The result is the client's, not the page's; nodes on the way leave previews, too.
            for output in (entry.get("outputs") or {}).values():
                for image in output.get("images") or []:
                    self._discard(image)
            with suppress(Unreachable):
                await self._call("POST", "/history", json={"delete": [ticket]})

    async def _listen(self) -> None:
        """Start listening once, and wait until it does: an event before that would be lost."""
        if self._listener is None or self._listener.done():
            self._hears.clear()
            self._listener = asyncio.get_running_loop().create_task(self._follow())
        await wait_for_event(self._hears, 5)

    async def _follow(self) -> None:
        address = f"{self._address.replace('http', 'ws', 1)}/ws?clientId={self._client}"
        while True:
            try:
                async with (
                    aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
                    session.ws_connect(
                        address, max_msg_size=_MOST_BYTES, ssl=self._ssl if self._ssl is False else True
                    ) as socket,
                ):
                    async for message in socket:
                        self._hears.set()
                        if message.type == aiohttp.WSMsgType.TEXT:
                            self._hear(message.json())
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError):
                pass
            self._hears.clear()
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _hear(self, event: Any) -> None:
        data = event.get("data") if isinstance(event, dict) else None
        if not isinstance(data, dict):
            return
        run = self._runs.get(data.get("prompt_id", ""))
        if run is None:
            return
        self._heard(data["prompt_id"], str(event.get("type")), data)
        if event.get("type") == "progress" and data.get("max"):
            run.progress(min(1.0, max(0.0, data["value"] / data["max"])))
        elif event.get("type") == "executing" and data.get("node") is None:
            run.over.set()


def _raise_failure(messages: list[Any]) -> None:
    events = {
        message[0]: message[1] for message in messages if isinstance(message, list) and len(message) > 1
    }
    if "execution_interrupted" in events:
        raise Cancelled("It was interrupted at the page.")
    error = events.get("execution_error") or {}
    own = str(error.get("exception_type", "")).startswith("kleinod.")
    words = str(error.get("exception_message") or "The run failed.").strip()
    raise RunFailed(words, told=own)


def _read_refusal(answer: Any) -> str:
    """Words of ComfyUI about a graph it refuses: those of the inputs that are wrong, if there are any."""
    found = []
    if isinstance(answer, dict):
        for node in (answer.get("node_errors") or {}).values():
            found += [str(error.get("details") or error.get("message")) for error in node.get("errors", [])]
        if not found and isinstance(answer.get("error"), dict):
            found = [str(answer["error"].get("message"))]
    return "; ".join(found) or "ComfyUI refused the graph."
