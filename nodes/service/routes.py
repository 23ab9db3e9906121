"""What the page asks the server about requests and presets, so that no script repeats a rule of the pack.

POST /kleinod/runware/copy    {"prompt": as ComfyUI queues it, "node": id} -> {"text", "notes"}
POST /kleinod/runware/paste   {"text", "node": class} -> widgets for each node, pictures' names, notes
GET  /kleinod/faces/presets   numbers of Klein Face Settings' presets

and those of the API that answers: what its owner sets, and everything below /kleinod/api itself, which asks
for a key of its own.

GET  /kleinod/api-settings          settings, names of keys, addresses
POST /kleinod/api-settings          changes of settings
POST /kleinod/api-settings/key      {"name"} -> a new key, shown this once
POST /kleinod/api-settings/revoke   {"name"}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from ..base.doors import Doors
from ..base.errors import InputError
from ..base.sentences import say
from ..faces.presets import CUSTOM, FIELDS, PRESETS
from .host import Host
from .runware_json import Paste, read_paste
from .web_adapter import PREFIX

# References of a request come along as base64.
MAX_BODY_BYTES = 96 << 20

MakeCopy = Callable[[dict[str, Any], str], Any]
KeepPicture = Callable[[bytes, int], str]


def add_routes(table: web.RouteTableDef, doors: Doors, copy: MakeCopy, keep_picture: KeepPicture) -> None:
    """copy: `graph_values.copy_request`. keep_picture: puts reference number n where Load Image finds it, and
    gives its name there.
    """

    def answer_copy(body: dict[str, Any]) -> dict[str, Any]:
        prompt, node = body.get("prompt"), body.get("node")
        if not isinstance(prompt, dict) or not isinstance(node, str):
            raise InputError(say("The request must hold a prompt and the id of one of its nodes."))
        return asdict(copy(prompt, node))

    def answer_paste(body: dict[str, Any]) -> dict[str, Any]:
        paste = read_paste(str(body.get("text", "")), str(body.get("node", "")))
        return describe(paste, keep_picture)

    async def answer_presets(request: web.Request) -> web.StreamResponse:
        return web.json_response(describe_presets())  # the same everywhere: nothing to guard

    for name, work in (("copy", answer_copy), ("paste", answer_paste)):
        handler = doors.post(work, private=False, most_bytes=MAX_BODY_BYTES)
        table.post(f"/kleinod/runware/{name}")(handler)
    table.get("/kleinod/faces/presets")(answer_presets)


def add_api_routes(table: web.RouteTableDef, doors: Doors, host: Host) -> None:
    """The owner's part behind the doors; the rest asks for keys."""
    table.get("/kleinod/api-settings")(doors.get(host.describe))
    for name, work in (("", host.change), ("/key", host.create_key), ("/revoke", host.revoke_key)):
        table.post(f"/kleinod/api-settings{name}")(doors.post(work))
    for path in (PREFIX, f"{PREFIX}/{{tail:.*}}"):
        table.route("*", path)(host.handle)


def describe(paste: Paste, keep_picture: KeepPicture) -> dict[str, Any]:
    """A Paste as the page reads it; its pictures become files."""
    names = [keep_picture(picture, number) for number, picture in enumerate(paste.pictures, 1)]
    return {**vars(paste), "pictures": names, "notes": list(paste.notes)}


def describe_presets() -> dict[str, Any]:
    numbers = {name: {key: getattr(preset, key) for key in FIELDS} for name, preset in PRESETS.items()}
    return {"custom": CUSTOM, "presets": numbers}
