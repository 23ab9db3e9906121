"""Who may use the pack's own addresses on ComfyUI's server.

ComfyUI has no login. What reveals or changes something of ours is therefore answered to a browser on this
machine only: the peer is this machine, the address it asked for is this machine's, no other page sent it, and
nothing says that a proxy stands in between. Everyone else shows a code that only the console tells: it is
written past ComfyUI's log, which the server hands out.

    doors.get(work), doors.post(work)   handlers around plain functions, the door included
    doors.check(request)                for a handler of another kind: raises Denied
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from .addresses import is_loopback
from .errors import ArtistError, InputError
from .sentences import Sentence, join, say

GUARD_HEADER = "X-Kleinod"
CODE_HEADER = "X-Kleinod-Code"
SMALL_BODY = 4096
# What proxies, tunnels and load balancers add. One of them is enough: the browser is somewhere else.
_FORWARDED = {
    "forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-original-host",
    "x-original-url", "x-host", "x-proxyuser-ip", "x-envoy-external-address", "true-client-ip",
    "client-ip", "cdn-loop", "cf-connecting-ip", "cf-ray", "fastly-client-ip", "fly-client-ip",
    "x-azure-clientip", "x-scheme", "x-appengine-user-ip", "x-nginx-proxy", "tailscale-user-login",
    "remote-addr",
}  # fmt: skip
_OWN_SITE = ("same-origin", "none")
_CODE_LETTERS = "ABCDEFGHJKMNPQRSTVWXYZ23456789"  # none that look alike

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Denied(ArtistError):
    """A request from somewhere that may not ask this."""


class Doors:
    """One for the whole server.

    cors: what ComfyUI's --enable-cors-header holds. multi_user: its --multi-user. always: ask everyone for
    the code, as where a proxy hides itself. tell: shows the owner the code.
    """

    def __init__(
        self,
        *,
        cors: str | None = None,
        multi_user: bool = False,
        always: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._cors, self._multi_user, self._always = cors, multi_user, always
        self._tell = tell or write_to_console
        self._told = False
        self.code = "-".join("".join(secrets.choice(_CODE_LETTERS) for _ in range(4)) for _ in range(4))
        # Browsers share cookies between ports, so each server has a name of its own.
        self.cookie = "kleinod_" + hashlib.sha256(f"name {self.code}".encode()).hexdigest()[:12]
        self._pass = hashlib.sha256(f"pass {self.code}".encode()).hexdigest()

    def check(self, request: web.Request, *, private: bool = True) -> None:
        """Denied unless this request may be answered.

        private: it shows or changes what belongs to the owner of this machine (keys, money, jobs); with
        several users at one ComfyUI, only who reads the console may.
        """
        if request.headers.get("Sec-Fetch-Site", "none") not in _OWN_SITE:
            raise Denied(say("This address answers pages of this ComfyUI only."))
        if self._has_code(request):
            return
        if self._always:
            self._refuse(say("This ComfyUI asks every browser for the code that its console shows."))
        if private and self._multi_user:
            self._refuse(
                say("With --multi-user, keys, limits and jobs are shown to the owner of ComfyUI only.")
            )
        reason = find_stranger(request.remote, request.headers, request.version)
        if reason:
            self._refuse(say("%1, and this is answered on the computer that ComfyUI runs on only.", reason))

    async def read(
        self, request: web.Request, *, private: bool = True, most_bytes: int = SMALL_BODY
    ) -> dict[str, Any]:
        """The JSON object of a request that changes something, {} for an empty one. Raises Denied, and
        InputError where it is none.
        """
        if request.headers.get(GUARD_HEADER) != "1" or request.content_type != "application/json":
            raise Denied(say("This request did not come from Kleinod's own page."))
        if private and self._cors == "*":
            raise Denied(
                say(
                    "ComfyUI runs with --enable-cors-header '*', "
                    "so any web page could change keys and limits. Start it without."
                )
            )
        self.check(request, private=private)
        data = b""
        async for part in request.content.iter_any():
            data += part
            if len(data) > most_bytes:
                raise InputError(
                    say("The request is larger than the %1 bytes allowed here.", f"{most_bytes:,}")
                )
        try:
            body = json.loads(data or b"{}")
        except (ValueError, RecursionError):
            raise InputError(say("The request is not JSON.")) from None
        if not isinstance(body, dict):
            raise InputError(say("The request is not a JSON object."))
        return body

    def get(self, work: Callable[[web.Request], Any], *, private: bool = True) -> Handler:
        """A handler that answers what `work` returns, in a thread, as JSON."""

        async def handle(request: web.Request) -> web.StreamResponse:
            self.check(request, private=private)
            return web.json_response(await asyncio.to_thread(work, request))

        return answers_sentences(handle)

    def post(
        self, work: Callable[[dict[str, Any]], Any], *, private: bool = True, most_bytes: int = SMALL_BODY
    ) -> Handler:
        """The same for what changes something: `work` gets the request's JSON object."""

        async def handle(request: web.Request) -> web.StreamResponse:
            body = await self.read(request, private=private, most_bytes=most_bytes)
            return web.json_response(await asyncio.to_thread(work, body))

        return answers_sentences(handle)

    async def unlock(self, request: web.Request) -> web.StreamResponse:
        """POST {"code": ...}: from now on this browser is let in."""
        try:
            body = json.loads(await request.content.read(SMALL_BODY))
            given = str(body["code"])
        except (ValueError, TypeError, KeyError):
            given = ""
        ours = request.headers.get(GUARD_HEADER) == "1" and request.content_type == "application/json"
        here = request.headers.get("Sec-Fetch-Site", "none") in _OWN_SITE
        if not (ours and here and self._is_code(given)):
            return web.json_response({"error": say("This is not the code in ComfyUI's console.")}, status=403)
        answer = web.json_response({"unlocked": True})
        answer.set_cookie(
            self.cookie, self._pass, httponly=True, samesite="Strict", path="/", secure=request.secure
        )
        return answer

    def _has_code(self, request: web.Request) -> bool:
        shown = request.cookies.get(self.cookie, "")
        return hmac.compare_digest(shown.encode(), self._pass.encode()) or self._is_code(
            request.headers.get(CODE_HEADER, "")
        )

    def _is_code(self, given: str) -> bool:
        return hmac.compare_digest(given.strip().upper().encode(), self.code.encode())

    def _refuse(self, reason: Sentence) -> None:
        if not self._told:
            self._told = True
            self._tell(
                "Kleinod: to manage keys, limits and jobs from another computer or through a proxy, enter "
                f"{self.code} under Settings > Kleinod > API keys > Code. It is new with every start."
            )
        let_in = say(
            "To be let in, enter the code that ComfyUI's console shows, "
            "under Settings > Kleinod > API keys > Code."
        )
        raise Denied(join(" ", [reason, let_in]))


def find_stranger(
    peer: str | None, headers: Mapping[str, str], version: tuple[int, int] = (1, 1)
) -> Sentence:
    """Why a request may come from another machine or page; "" where everything says it is this one."""
    if not is_loopback(peer or ""):
        return say("This browser is on another computer")
    names = {name.lower() for name in headers}
    if names & _FORWARDED or any(name.startswith(("x-forwarded", "ngrok-", "x-ms-proxy")) for name in names):
        return say("This request came through a proxy")
    if tuple(version) < (1, 1):
        return say("This request came through a proxy (no browser speaks HTTP/1.0)")
    host = headers.get("Host", "")
    if not is_loopback(_split_host(f"//{host}")[0]):
        return say("This request was sent to another name than this computer's own")
    for name in ("Origin", "Referer"):
        if name in headers and _split_host(headers[name]) != _split_host(f"//{host}"):
            return say("This request came from another page")
    return Sentence("")


def _split_host(address: str) -> tuple[str, int | None]:
    """(name, port) of an address, None for a standard port; ("", None) where it cannot be read."""
    try:
        parts = urlsplit(address)
        return (parts.hostname or "").lower(), None if parts.port in (80, 443) else parts.port
    except ValueError:
        return "", None


def answers_sentences(handle: Handler) -> Handler:
    """Around a handler: what a sentence explains is answered as `{"error": sentence}`, 403 or 400. Any other
    exception is a bug and stays one.
    """

    async def handle_safely(request: web.Request) -> web.StreamResponse:
        try:
            return await handle(request)
        except Denied as error:
            return web.json_response({"error": str(error), "locked": True}, status=403)
        except ArtistError as error:
            return web.json_response({"error": str(error)}, status=400)

    return handle_safely


def write_to_console(text: str) -> None:
    """To the terminal itself: ComfyUI shows what goes through sys.stderr to everyone who asks for its log."""
    if sys.__stderr__ is not None:
        sys.__stderr__.write(f"\n{text}\n\n")
        sys.__stderr__.flush()
