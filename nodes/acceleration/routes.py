"""Settings > Kleinod > Acceleration, at the server.

GET  /kleinod/learning          whether uncached runs may teach, and what they taught
POST /kleinod/learning          {"enabled": true}: they may
POST /kleinod/learning/erase    forget all of it
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from ..base.doors import Doors
from ..base.errors import InputError
from ..base.sentences import say


def add_routes(
    table: web.RouteTableDef,
    doors: Doors,
    tell: Callable[[], dict[str, Any]],
    switch: Callable[[bool], None],
    erase: Callable[[], None],
) -> None:
    """tell, switch, erase: of `learning_files`."""

    def state(request: web.Request) -> dict[str, Any]:
        return tell()

    def change(body: dict[str, Any]) -> dict[str, Any]:
        enabled = body.get("enabled")
        if not isinstance(enabled, bool):
            raise InputError(say("enabled must be true or false."))
        switch(enabled)
        return tell()

    def forget(body: dict[str, Any]) -> dict[str, Any]:
        erase()
        return tell()

    table.get("/kleinod/learning")(doors.get(state))
    table.post("/kleinod/learning")(doors.post(change))
    table.post("/kleinod/learning/erase")(doors.post(forget))
