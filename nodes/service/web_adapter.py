"""The service behind an aiohttp server: who may ask at all, how much may be sent, and one WebSocket."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from ..base.addresses import is_loopback
from .application import answer, answer_problem
from .dialects.runware_channel import Channels
from .messages import Answer, Request, answer_json, read_secret
from .settings import ApiSettings

PREFIX = "/kleinod/api"
MAX_BODY = 112 << 20
MAX_UNKNOWN_BODY = 16 << 20
"""Of a client whose key is not in a header: Runware's may stand in the body."""
BODY_SECONDS = 120.0
GREETING_SECONDS = 15.0
IDLE_SECONDS = 120.0
MAX_SOCKETS = 256


class TooLarge(Exception):
    pass


def find_stranger(peer: str | None, host: str, settings: ApiSettings) -> str:
    """Why a request is not answered; "" where it is. Names under which a browser could be led here by
    somebody else's DNS are answered only where the owner listed them.
    """
    if not settings.remote and not is_loopback(peer or ""):
        return (
            "This API answers its own machine only. "
            "Its owner can open it to others under Settings > Kleinod > API that answers."
        )
    try:
        name = (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        name = ""
    if is_loopback(name) or host.lower() in settings.hosts or name in settings.hosts:
        return ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return (
            "This API is not asked under that name. "
            "Its owner can add it under Settings > Kleinod > API that answers; numbers work as they are."
        )
    return ""


class WebAdapter:
    """One for a running service."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._service = channels.service
        self._sockets: set[web.WebSocketResponse] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        problem = find_stranger(request.remote, request.headers.get("Host", ""), self._service.settings)
        base, path = _split_path(request)
        if problem:
            return _send(answer_problem(path, 403, "forbiddenHost", problem))
        if request.headers.get("Upgrade", "").lower() == "websocket":
            if path.rstrip("/") != "/runware/v1":
                return _send(answer_json(404, {"error": "There is no WebSocket here."}))
            return await self._converse(request, base)
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            body = await asyncio.wait_for(self._read(request, headers), BODY_SECONDS)
        except TooLarge:
            return _send(answer_problem(path, 413, "bodyTooLarge", "The body is too large."))
        except asyncio.TimeoutError:
            return _send(answer_problem(path, 408, "bodyTooSlow", "The body came too slowly."))
        except (ConnectionError, ValueError, web.HTTPException):
            return _send(answer_problem(path, 400, "invalidBody", "The body could not be read."))
        asked = Request(request.method, path, headers, dict(request.query), body, base)
        return _send(await answer(self._service, asked))

    async def close(self) -> None:
        for socket in list(self._sockets):
            await socket.close()

    async def _read(self, request: web.Request, headers: Mapping[str, str]) -> bytes:
        if not request.can_read_body:
            return b""
        limit = MAX_BODY if self._service.knows(read_secret(headers)) else MAX_UNKNOWN_BODY
        if (request.content_length or 0) > limit:
            raise TooLarge
        data = bytearray()
        async for part in request.content.iter_any():
            data += part
            if len(data) > limit:
                raise TooLarge
        return bytes(data)

    async def _converse(self, request: web.Request, base: str) -> web.StreamResponse:
        if len(self._sockets) >= MAX_SOCKETS:
            return _send(answer_json(503, {"error": "Too many connections are open."}))
        socket = web.WebSocketResponse(max_msg_size=MAX_UNKNOWN_BODY, compress=False)
        await socket.prepare(request)
        self._sockets.add(socket)
        conversation = self._channels.open(base, socket.send_str)
        try:
            while True:
                patience = IDLE_SECONDS if conversation.is_known else GREETING_SECONDS
                message = await socket.receive(timeout=patience)
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                if not await conversation.hear(message.data):
                    break
        except (asyncio.TimeoutError, ConnectionError, RuntimeError):
            pass
        finally:
            conversation.leave()
            self._sockets.discard(socket)
            await socket.close()
        return socket


def _split_path(request: web.Request) -> tuple[str, str]:
    """(the service's address as the client used it, the path below it)"""
    before, _, path = request.path.partition(PREFIX)
    path = re.sub("/{2,}", "/", path)  # clients differ in whether they end an address with one
    return f"{request.scheme}://{request.headers.get('Host', '')}{before}{PREFIX}", path


def _send(told: Answer) -> web.Response:
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", **told.headers}
    return web.Response(
        status=told.status, body=told.body, headers={**headers, "Content-Type": _name_type(told.content_type)}
    )


def _name_type(kind: str) -> str:
    return f"{kind}; charset=utf-8" if kind.startswith("text/") and "charset" not in kind else kind
