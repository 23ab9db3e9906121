"""The service behind an ASGI server: what `nodes/service/web_adapter.py` is for ComfyUI's aiohttp."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from kleinod_pure.service.application import answer, answer_problem
from kleinod_pure.service.dialects.runware_channel import Channels
from kleinod_pure.service.messages import Answer, Request, answer_json, read_secret
from kleinod_pure.service.service import Service
from kleinod_pure.service.web_adapter import (
    BODY_SECONDS,
    GREETING_SECONDS,
    IDLE_SECONDS,
    MAX_BODY,
    MAX_SOCKETS,
    MAX_UNKNOWN_BODY,
    PREFIX,
    TooLarge,
    find_stranger,
)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_CLOSE_NORMAL, _CLOSE_TOO_BIG = 1000, 1009


class AsgiAdapter:
    """An ASGI 3 application around a running service. numbers: lines added to its /metrics."""

    def __init__(self, service: Service, numbers: Callable[[], str] = lambda: "") -> None:
        self._service = service
        self._channels = Channels(service)
        self._numbers = numbers
        self._sockets = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer_http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._converse(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _agree(receive, send)

    async def _answer_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _read_headers(scope)
        base, path = _split_path(scope, headers)
        problem = self._find_stranger(scope, headers)
        if problem:
            await _send_answer(send, answer_problem(path or "", 403, "forbiddenHost", problem))
            return
        if path is None:
            await _send_answer(send, answer_json(404, {"error": f"The API is below {PREFIX}."}))
            return
        try:
            body = await asyncio.wait_for(self._read(receive, headers), BODY_SECONDS)
        except TooLarge:
            await _send_answer(send, answer_problem(path, 413, "bodyTooLarge", "The body is too large."))
            return
        except asyncio.TimeoutError:
            await _send_answer(send, answer_problem(path, 408, "bodyTooSlow", "The body came too slowly."))
            return
        except ConnectionError:
            return
        query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))
        told = await answer(self._service, Request(scope["method"], path, headers, query, body, base))
        if path == "/metrics" and told.status == 200:
            told = Answer(200, told.body + self._numbers().encode(), told.content_type, told.headers)
        await _send_answer(send, told, scope["method"] == "HEAD")

    def _find_stranger(self, scope: Scope, headers: Mapping[str, str]) -> str:
        peer = (scope.get("client") or ("",))[0]
        return find_stranger(peer, headers.get("host", ""), self._service.settings)

    async def _read(self, receive: Receive, headers: Mapping[str, str]) -> bytes:
        limit = MAX_BODY if self._service.knows(read_secret(headers)) else MAX_UNKNOWN_BODY
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise TooLarge
        data = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            data += message.get("body", b"")
            if len(data) > limit:
                raise TooLarge
            if not message.get("more_body"):
                return bytes(data)

    async def _converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _read_headers(scope)
        base, path = _split_path(scope, headers)
        await receive()  # the request for a connection
        if (
            self._find_stranger(scope, headers)
            or (path or "").rstrip("/") != "/runware/v1"
            or self._sockets >= MAX_SOCKETS
        ):
            await send({"type": "websocket.close", "code": _CLOSE_NORMAL})  # before accept: HTTP 403
            return
        await send({"type": "websocket.accept"})
        self._sockets += 1
        gone = False

        async def tell(text: str) -> None:
            if gone:
                raise ConnectionError
            try:
                await send({"type": "websocket.send", "text": text})
            except Exception as error:  # each server has an error of its own for a connection that ended
                raise ConnectionError(type(error).__name__) from None

        conversation = self._channels.open(base, tell)
        code = _CLOSE_NORMAL
        try:
            while True:
                patience = IDLE_SECONDS if conversation.is_known else GREETING_SECONDS
                message = await asyncio.wait_for(receive(), patience)
                if message["type"] != "websocket.receive":
                    gone = True
                    break
                text = message.get("text")
                data = text if text is not None else message.get("bytes") or b""
                if len(data) > MAX_UNKNOWN_BODY:
                    code = _CLOSE_TOO_BIG
                    break
                if not await conversation.hear(data):
                    break
        except (asyncio.TimeoutError, ConnectionError, RuntimeError):
            pass
        finally:
            conversation.leave()
            self._sockets -= 1
            if not gone:
                gone = True
                await _close(send, code)


async def _close(send: Send, code: int) -> None:
    try:
        await send({"type": "websocket.close", "code": code})
    except Exception:  # it had ended already, in each server's own words
        return


async def _agree(receive: Receive, send: Send) -> None:
    """The server's start and end: the service has its own."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _read_headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _split_path(scope: Scope, headers: Mapping[str, str]) -> tuple[str, str | None]:
    """(the service's address as the client used it, the path below it or None where it is elsewhere)"""
    scheme = {"ws": "http", "wss": "https"}.get(scope.get("scheme", "http"), scope.get("scheme", "http"))
    before, found, path = scope["path"].partition(PREFIX)
    base = f"{scheme}://{headers.get('host', '')}{before}{PREFIX}"
    return base, re.sub("/{2,}", "/", path) if found and (not path or path[0] == "/") else None


async def _send_answer(send: Send, told: Answer, only_head: bool = False) -> None:
    kind = told.content_type
    if kind.startswith("text/") and "charset" not in kind:
        kind += "; charset=utf-8"
    headers = {
        "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", **told.headers,
        "Content-Type": kind, "Content-Length": str(len(told.body)),
    }  # fmt: skip
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": told.status, "headers": pairs})
    await send({"type": "http.response.body", "body": b"" if only_head else told.body})
