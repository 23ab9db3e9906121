"""The settings panel's own routes, under /kleinod. No answer ever holds a key.

ComfyUI itself refuses cross-site requests only on loopback hosts, so changing anything here asks for more:
JSON, a header of our own (a browser then asks permission first, which is never given), a browser on this
machine, and a server that has not thrown its doors open with `--enable-cors-header "*"`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from ..base.errors import ArtistError, InputError
from .engine import Engine
from .environment import allows_remote_settings
from .errors import Denied, RemoteError, TransportError
from .estimate import estimate
from .hosts import is_loopback, make_endpoint
from .images import sniff
from .job_list import Save, list_choices, list_jobs, read_picture, read_thumbnail, recover_to_files
from .keys import check_profile
from .limits import read_limits, write_limits
from .services import find_service, list_services

GUARD_HEADER = "X-Kleinod"
_MOST_BYTES = 4096
# A picture under an id never changes; no page of another site may embed it.
_PICTURE_HEADERS = {
    "Cache-Control": "private, max-age=86400",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_routes(
    table: web.RouteTableDef,
    find_engine: Callable[[], Engine],
    folder: Callable[[], Path],
    is_open_to_all: Callable[[], bool],
    save: Save,
) -> None:
    """Register everything on `table`. The engine is made on first use, in a thread. save: puts files into
    ComfyUI's output folder.
    """

    def guarded(work: Callable[[dict[str, Any]], Any]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                body = await _read_guarded(request, is_open_to_all())
                return web.json_response(await asyncio.to_thread(work, body))
            except Denied as error:
                return web.json_response({"error": str(error)}, status=403)
            except ArtistError as error:
                return web.json_response({"error": str(error)}, status=400)

        return handle

    def from_our_page(work: Callable[[web.Request], Any]) -> Handler:
        """What costs nothing and changes no setting, from any browser, but by the pack's own page."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.headers.get(GUARD_HEADER) != "1" or request.content_type != "application/json":
                return web.json_response(
                    {"error": "This request did not come from Kleinod's page."}, status=403
                )
            return await read_only(work)(request)

        return handle

    def read_only(work: Callable[[web.Request], Any]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return web.json_response(await asyncio.to_thread(work, request))
            except ArtistError as error:
                return web.json_response({"error": str(error)}, status=400)

        return handle

    table.get("/kleinod/services")(read_only(lambda request: describe_services()))
    table.get("/kleinod/hosts")(read_only(lambda request: find_engine().hosts.describe()))
    table.post("/kleinod/hosts")(guarded(lambda body: allow_hosts(find_engine(), body)))
    table.post("/kleinod/jobs/{job}/recover")(
        from_our_page(lambda ask: recover_to_files(find_engine(), ask.match_info["job"], save))
    )
    table.get("/kleinod/keys")(read_only(lambda request: find_engine().keys.describe()))
    table.post("/kleinod/keys")(guarded(lambda body: save_key(find_engine(), body)))
    table.delete("/kleinod/keys")(guarded(lambda body: clear_key(find_engine(), body)))
    table.post("/kleinod/keys/test")(guarded(lambda body: test_key(find_engine(), body)))
    table.get("/kleinod/limits")(read_only(lambda request: asdict(read_limits(folder()))))
    table.post("/kleinod/limits")(guarded(lambda body: change_limits(find_engine(), folder(), body)))
    table.get("/kleinod/jobs")(read_only(lambda request: list_jobs(find_engine())))
    table.get("/kleinod/jobs/choices")(read_only(lambda request: list_choices(find_engine())))
    table.get("/kleinod/estimate/{service}")(
        read_only(lambda ask: estimate(find_engine(), ask.match_info["service"], ask.query))
    )
    for name, read in (("thumbnail", read_thumbnail), ("picture", read_picture)):
        handler = partial(_send_picture, find_engine=find_engine, read=read)
        table.get(f"/kleinod/jobs/{{job}}/{{position:[0-9]{{1,2}}}}/{name}")(handler)


def describe_services() -> dict[str, dict[str, Any]]:
    """What the page needs to know of each service, by name."""
    return {
        service.name: {
            "title": service.title,
            "company": service.company,
            "node": service.node_id,
            "key_page": service.key_page,
            "regions": list(service.regions),
            "widgets": [field.name for field in service.fields],
        }
        for service in list_services()
    }


def allow_hosts(engine: Engine, body: dict[str, Any]) -> dict[str, list[str]]:
    """Replace the list of hosts that a service's pictures may come from."""
    return engine.hosts.write(find_service(body.get("service")).name, body.get("hosts"))


def change_limits(engine: Engine, folder: Path, body: dict[str, Any]) -> dict[str, Any]:
    limits = write_limits(folder, body)
    engine.forget_limits()
    return asdict(limits)


def save_key(engine: Engine, body: dict[str, Any]) -> dict[str, Any]:
    engine.keys.save(body.get("service"), body.get("profile", "default"), body.get("key"))
    return engine.keys.describe()


def clear_key(engine: Engine, body: dict[str, Any]) -> dict[str, Any]:
    engine.keys.clear(body.get("service"), body.get("profile", "default"))
    return engine.keys.describe()


def test_key(engine: Engine, body: dict[str, Any]) -> dict[str, Any]:
    """Ask for the balance: free, and proof that the key works."""
    service = find_service(body.get("service"))
    profile = check_profile(body.get("profile", "default"))
    try:
        balance = engine.accounts.ask_balance(service.name, profile)
    except RemoteError as error:
        return {"ok": False, "message": str(error)}
    except TransportError as error:
        return {"ok": False, "message": f"{service.title} could not be reached: {error}."}
    endpoint = make_endpoint(service)
    where = f" (an emulator at {endpoint.override})" if endpoint.override else ""
    money = "the key works" if balance is None else f"the key works; the balance is ${balance:.2f}"
    return {"ok": True, "balance_usd": balance, "message": f"{service.title}{where}: {money}."}


async def _send_picture(
    request: web.Request, find_engine: Callable[[], Engine], read: Callable[[Engine, str, int], bytes]
) -> web.StreamResponse:
    """A picture of the spool: known by the ledger's id, never by a path."""
    try:
        job_id, position = request.match_info["job"], int(request.match_info["position"])
        data = await asyncio.to_thread(lambda: read(find_engine(), job_id, position))
    except ArtistError as error:
        return web.json_response({"error": str(error)}, status=404)
    kind = f"image/{(sniff(data) or 'octet-stream').lower()}"
    return web.Response(body=data, content_type=kind, headers=_PICTURE_HEADERS)


async def _read_guarded(request: web.Request, open_to_all: bool) -> dict[str, Any]:
    """The JSON object of a request that is allowed to change something; Denied otherwise."""
    if request.headers.get(GUARD_HEADER) != "1" or request.content_type != "application/json":
        raise Denied("This request did not come from Kleinod's settings panel.")
    if open_to_all:
        raise Denied(
            "ComfyUI runs with --enable-cors-header '*', so any web page could change keys. Start it without."
        )
    if not is_loopback(request.remote or "") and not allows_remote_settings():
        raise Denied(
            "Keys can only be changed on the computer ComfyUI runs on. To allow it from another one, start "
            "ComfyUI with the environment variable KLEINOD_ALLOW_REMOTE_SETTINGS=1."
        )
    if (request.content_length or 0) > _MOST_BYTES:
        raise InputError("The request is too large.")
    data = await request.content.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InputError("The request is too large.")
    try:
        body = json.loads(data)
    except ValueError:
        raise InputError("The request is not JSON.") from None
    if not isinstance(body, dict):
        raise InputError("The request is not a JSON object.")
    return body
