"""Every address that the pack registers has a door, and nothing but what is the same for everyone is open."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from kleinod.nodes.acceleration import routes as learning_routes
from kleinod.nodes.base.doors import Doors
from kleinod.nodes.loras import routes as lora_routes
from kleinod.nodes.model import routes as model_routes
from kleinod.nodes.remote import routes as remote_routes
from kleinod.nodes.service import routes as service_routes
from kleinod.nodes.service.host import Host, Surroundings
from kleinod.nodes.service.service import Machine

NODES = Path(__file__).resolve().parents[2] / "nodes"
OPEN = {"/kleinod/services", "/kleinod/faces/presets"}
# Doors of its own: off until its owner switches it on, then it asks for keys (tests/core/test_api_*.py).
API = {"/kleinod/api", "/kleinod/api/{tail:.*}"}


def fail(*_: object) -> None:
    raise AssertionError("a handler went to work before the door was asked")


def make_table(doors: Doors) -> web.RouteTableDef:
    table = web.RouteTableDef()
    remote_routes.add_routes(table, doors, fail, fail, fail)
    lora_routes.add_routes(table, doors, fail, fail, fail)
    service_routes.add_routes(table, doors, fail, fail)
    host = Host(Surroundings(fail, fail, fail, Machine(fail, fail, fail), fail))
    service_routes.add_api_routes(table, doors, host)
    model_routes.add_routes(table, doors, fail, fail)
    learning_routes.add_routes(table, doors, fail, fail, fail)
    return table


def test_every_route_asks_who_is_there() -> None:
    table = make_table(Doors(always=True, tell=lambda text: None))

    async def ask() -> dict[tuple[str, str], int]:
        app = web.Application()
        app.add_routes(table)
        found = {}
        async with TestClient(TestServer(app)) as client:
            for route in table:
                path = re.sub(
                    r"\{position[^}]*\}{1,2}\}?", "0", re.sub(r"\{(job|service)\}", "x", route.path)
                )
                headers = {"X-Kleinod": "1", "Content-Type": "application/json"}
                method = "POST" if route.method == "*" else route.method
                answer = await client.request(method, path, headers=headers, data="{}")
                found[route.method, route.path] = answer.status
        return found

    found = asyncio.run(ask())
    assert len(found) > 20
    assert {path for (_, path), status in found.items() if status != 403} == OPEN | API
    assert {status for (_, path), status in found.items() if path in API} == {404}


def test_no_other_module_registers_addresses() -> None:
    """A new one belongs into the table above."""
    pattern = re.compile(r"PromptServer.*\.routes|server\.routes|router\.add_")
    holders = {
        file.relative_to(NODES).as_posix()
        for file in NODES.rglob("*.py")
        if pattern.search(file.read_text("utf-8"))
    }
    assert holders == {
        "remote/session.py", "loras/library.py", "service/session.py", "model/own_files.py",
        "acceleration/learning_files.py",
    }  # fmt: skip
