"""What the settings and the job panel ask the server, under /kleinod, behind the doors of the pack
(`base/doors.py`). No answer ever holds a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from ..base.doors import Doors, answers_sentences
from ..base.errors import ArtistError
from ..base.sentences import say
from .engine import Engine
from .errors import NotSent, RemoteError, TransportError
from .estimate import estimate
from .images import sniff
from .job_list import (
    Save,
    list_choices,
    list_jobs,
    read_picture,
    read_prompt,
    read_thumbnail,
    recover_to_files,
)
from .limits import read_limits, write_limits
from .profiles import check_profile, looks_like_key
from .services import find_service, list_services

# A picture under an id never changes; no page of another site may embed it.
_PICTURE_HEADERS = {
    "Cache-Control": "private, max-age=86400",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def add_routes(
    table: web.RouteTableDef,
    doors: Doors,
    find_engine: Callable[[], Engine],
    folder: Callable[[], Path],
    save: Save,
) -> None:
    """Register everything on `table`. The engine is made on first use, in a thread. save: puts files into
    ComfyUI's output folder.
    """

    async def answer_services(request: web.Request) -> web.StreamResponse:
        return web.json_response(describe_services())  # the same everywhere: nothing to guard

    async def recover(request: web.Request) -> web.StreamResponse:
        await doors.read(request)
        job_id = request.match_info["job"]
        files = await asyncio.to_thread(lambda: recover_to_files(find_engine(), job_id, save))
        return web.json_response(files)

    def send(read: Callable[[Engine, str, int], bytes]) -> Callable[..., Any]:
        """A picture of a job: known by the ledger's id, never by a path."""

        async def handle(request: web.Request) -> web.StreamResponse:
            doors.check(request)
            job_id, position = request.match_info["job"], int(request.match_info["position"])
            try:
                data = await asyncio.to_thread(lambda: read(find_engine(), job_id, position))
            except ArtistError as error:
                return web.json_response({"error": str(error)}, status=404)
            kind = f"image/{(sniff(data) or 'octet-stream').lower()}"
            return web.Response(body=data, content_type=kind, headers=_PICTURE_HEADERS)

        return answers_sentences(handle)

    table.get("/kleinod/services")(answer_services)
    table.post("/kleinod/unlock")(doors.unlock)
    table.get("/kleinod/hosts")(doors.get(lambda request: find_engine().hosts.describe()))
    table.post("/kleinod/hosts")(doors.post(lambda body: allow_hosts(find_engine(), body)))
    table.get("/kleinod/keys")(doors.get(lambda request: find_engine().keys.describe()))
    table.post("/kleinod/keys")(doors.post(lambda body: save_key(find_engine(), body)))
    table.delete("/kleinod/keys")(doors.post(lambda body: clear_key(find_engine(), body)))
    table.post("/kleinod/keys/test")(doors.post(lambda body: test_key(find_engine(), body)))
    table.post("/kleinod/profiles/check")(
        doors.post(lambda body: judge_profile(find_engine(), body), private=False)
    )
    table.get("/kleinod/servers")(doors.get(lambda request: find_engine().accounts.servers.describe()))
    table.post("/kleinod/servers")(doors.post(lambda body: save_server(find_engine(), body)))
    table.delete("/kleinod/servers")(doors.post(lambda body: clear_server(find_engine(), body)))
    table.post("/kleinod/servers/test")(doors.post(lambda body: test_server(find_engine(), body)))
    table.get("/kleinod/limits")(doors.get(lambda request: asdict(read_limits(folder()))))
    table.post("/kleinod/limits")(doors.post(lambda body: change_limits(find_engine(), folder(), body)))
    table.get("/kleinod/jobs")(doors.get(lambda request: list_jobs(find_engine())))
    table.get("/kleinod/jobs/choices")(doors.get(lambda request: list_choices(find_engine())))
    table.get("/kleinod/jobs/{job}/prompt")(
        doors.get(lambda ask: read_prompt(find_engine(), ask.match_info["job"]))
    )
    table.post("/kleinod/jobs/{job}/recover")(answers_sentences(recover))
    table.get("/kleinod/estimate/{service}")(
        doors.get(lambda ask: estimate(find_engine(), ask.match_info["service"], ask.query), private=False)
    )
    for name, read in (("thumbnail", read_thumbnail), ("picture", read_picture)):
        table.get(f"/kleinod/jobs/{{job}}/{{position:[0-9]{{1,2}}}}/{name}")(send(read))


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


def save_server(engine: Engine, body: dict[str, Any]) -> list[dict[str, str]]:
    """A server of the user's own: {"name", "address", "key", "plain": whether no encryption is all right}."""
    servers = engine.accounts.servers
    servers.save(*(body.get(name) for name in ("name", "address", "key", "plain")))
    return servers.describe()


def clear_server(engine: Engine, body: dict[str, Any]) -> list[dict[str, str]]:
    engine.accounts.servers.clear(body.get("name"))
    return engine.accounts.servers.describe()


def test_server(engine: Engine, body: dict[str, Any]) -> dict[str, Any]:
    """Ask an own server whether it is there and takes the key."""
    name = check_profile(body.get("name"))
    return _ask(engine, "own-runware", name)


def judge_profile(engine: Engine, body: dict[str, Any]) -> dict[str, Any]:
    """Whether a key was typed where a name belongs: the page then takes it out of the node again."""
    text = str(body.get("profile", ""))
    return {"is_key": looks_like_key(text) or engine.keys.holds(text)}


def test_key(engine: Engine, body: dict[str, Any]) -> dict[str, Any]:
    """Ask for the balance: free, and proof that the key works."""
    service = find_service(body.get("service"))
    return _ask(engine, service.name, check_profile(body.get("profile", "default")))


def _ask(engine: Engine, name: str, profile: str) -> dict[str, Any]:
    service = find_service(name)
    try:
        endpoint = engine.accounts.find_endpoint(name, profile)
        balance = engine.accounts.ask_balance(name, profile)
    except RemoteError as error:
        return {"ok": False, "message": str(error)}
    except NotSent as error:
        return {"ok": False, "message": say("%1 could not be reached: %2.", service.title, str(error))}
    except TransportError:
        words = say("%1 gave no usable answer. Try again in a while.", service.title)
        return {"ok": False, "message": words}
    if service.own_path:
        words = say("%1 answers at %2, and the key works.", profile, urlsplit(endpoint.base).netloc)
        return {"ok": True, "balance_usd": None, "message": words}
    title = f"{service.title} (an emulator at {endpoint.override})" if endpoint.override else service.title
    words = say("%1: the key works.", title)
    if balance is not None:
        words = say("%1: the key works, and the balance is $%2.", title, f"{balance:.2f}")
    return {"ok": True, "balance_usd": balance, "message": words}
