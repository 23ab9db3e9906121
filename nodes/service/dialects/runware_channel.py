"""Runware's WebSocket: one conversation with a client, free of any web framework.

The first frame authenticates; results of sync tasks come as they are done. What could not be told because
the connection broke waits for a while for the same client to come back with its connectionSessionUUID.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..access import ApiKey
from ..book import Job
from ..messages import Refusal
from ..service import Service
from .runware import INFERENCE, add_picture, answer_error, do_task, read_tasks

Send = Callable[[str], Awaitable[None]]
logger = logging.getLogger("kleinod.api")
RESUME_SECONDS = 120.0
_MOST_SESSIONS = 1000
_MOST_WAITING = 256


@dataclass
class Session:
    """What outlives a connection. outbox: messages nobody took. left: when the client went, None while it is
    there.
    """

    key_id: int
    send: Send | None = None
    outbox: list[str] = field(default_factory=list)
    left: float | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def tell(self, body: Mapping[str, Any]) -> None:
        text = json.dumps(body)
        if self.send is not None:
            try:
                await self.send(text)
                return
            except (ConnectionError, RuntimeError):
                self.send = None
        if len(self.outbox) < _MOST_WAITING:
            self.outbox.append(text)


class Channels:
    """The sessions of one service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._sessions: dict[str, Session] = {}

    def open(self, base: str, send: Send) -> Conversation:
        return Conversation(self, base, send)

    def take(self, key: ApiKey, name: Any, send: Send) -> tuple[str, Session]:
        """The session of that name, if it is this key's, else a new one."""
        self._forget()
        found = self._sessions.get(name) if isinstance(name, str) else None
        if found is None or found.key_id != key.id:
            name, found = str(uuid.uuid4()), Session(key.id)
            self._sessions[name] = found
        found.send, found.left = send, None
        return name, found

    def _forget(self) -> None:
        now = time.monotonic()
        for name, session in list(self._sessions.items()):
            if session.left is not None and (
                now - session.left > RESUME_SECONDS or len(self._sessions) > _MOST_SESSIONS
            ):
                del self._sessions[name]


class Conversation:
    """One connection."""

    def __init__(self, channels: Channels, base: str, send: Send) -> None:
        self._channels, self._base, self._send = channels, base, send
        self._key: ApiKey | None = None
        self._session: Session | None = None

    @property
    def is_known(self) -> bool:
        return self._key is not None

    async def hear(self, text: str | bytes) -> bool:
        """Answer one frame; False where the connection is to end."""
        try:
            tasks = read_tasks(text.encode() if isinstance(text, str) else text)
        except Refusal as refusal:
            await self._send(json.dumps({"errors": [answer_error(refusal)]}))
            return self.is_known
        except UnicodeEncodeError:
            return False
        for task in tasks:
            if task.get("taskType") == "authentication":
                if not await self._authenticate(task):
                    return False
            elif self._session is None or self._key is None:
                if task.get("taskType") == "ping":
                    await self._send(json.dumps({"data": [{"taskType": "ping", "pong": True}]}))
                    continue
                stranger = Refusal(401, "missingApiKey", "The first task must be authentication.", "apiKey")
                await self._send(json.dumps({"errors": [answer_error(stranger, task)]}))
                return False
            else:
                await self._do(self._session, self._key, task)
        return True

    def leave(self) -> None:
        """The connection is gone; what its tasks make is kept for a while."""
        if self._session is not None and self._session.send is self._send:
            self._session.send, self._session.left = None, time.monotonic()

    async def _authenticate(self, task: Mapping[str, Any]) -> bool:
        service = self._channels.service
        try:
            self._key = service.identify(str(task.get("apiKey") or ""))
        except Refusal as refusal:
            await self._send(json.dumps({"errors": [answer_error(refusal, task)]}))
            return False
        name, self._session = self._channels.take(self._key, task.get("connectionSessionUUID"), self._send)
        answer = {"taskType": "authentication", "connectionSessionUUID": name}
        await self._send(json.dumps({"data": [answer]}))
        waiting, self._session.outbox = self._session.outbox, []
        for text in waiting:
            await self._send(text)
        return True

    async def _do(self, session: Session, key: ApiKey, task: dict[str, Any]) -> None:
        service = self._channels.service
        try:
            # A key may have been revoked since this connection began.
            done = await do_task(
                service, key if self._is_valid(key) else service.identify("-"), task, self._base
            )
        except Refusal as refusal:
            await session.tell({"errors": [answer_error(refusal, task)]})
            return
        except Exception as error:
            # Neither the text of the error nor the task: both may hold what the client sent.
            logger.error("A task of a WebSocket failed: %s.", type(error).__name__)
            bug = Refusal(500, "internalServerError", "The server made a mistake; its log says where.")
            await session.tell({"errors": [answer_error(bug, task)]})
            return
        if done.data or done.errors or done.job is None:
            body = {"data": done.data} if done.data or not done.errors else {}
            await session.tell(body | ({"errors": done.errors} if done.errors else {}))
        if done.job is not None:
            follower = asyncio.get_running_loop().create_task(self._follow(session, done.job))
            session.tasks.add(follower)
            follower.add_done_callback(session.tasks.discard)

    def _is_valid(self, key: ApiKey) -> bool:
        return any(one.id == key.id and not one.revoked for one in self._channels.service.keys.list())

    async def _follow(self, session: Session, job: Job) -> None:
        """Each picture of a sync task, as it comes."""
        service, told = self._channels.service, set[str]()
        count = len(service.book.pictures(job.id))
        while len(told) < count:
            try:
                ready = await service.wait(job.id, len(told))
            except Refusal as refusal:
                task = {"taskType": INFERENCE, "taskUUID": job.task}
                await session.tell({"errors": [answer_error(refusal, task)]})
                return
            for picture in ready:
                if picture.id in told:
                    continue
                told.add(picture.id)
                data: list[dict[str, Any]] = []
                errors: list[dict[str, Any]] = []
                add_picture(service, job, picture, self._base, data, errors, poll=False)
                await session.tell(({"data": data} if data else {}) | ({"errors": errors} if errors else {}))
