"""What Klein Loader's button and a new sampler ask the server: read-only routes under /kleinod/model.

    GET /kleinod/model/files      the user's own files as a set, what it lacks, what samplers are set to then
    GET /kleinod/model/settings   size, steps and guidance of a listed model

Both take ?diffusion_model=NAME&variant=V, what the loader's pickers hold.

Names of files are all that they tell, those that ComfyUI lists in every picker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from ..base.doors import Doors
from .facts import VARIANTS, KleinFacts

FindFiles = Callable[[str, str], Any]
FindFacts = Callable[[str, str], KleinFacts | None]


def add_routes(table: web.RouteTableDef, doors: Doors, find_files: FindFiles, find_facts: FindFacts) -> None:
    """find_files: `own_files.find_own_files`. find_facts: `own_files.facts_of_file`."""

    def files(request: web.Request) -> dict[str, Any]:
        return describe_files(find_files(*_wanted(request)))

    def settings(request: web.Request) -> dict[str, Any]:
        return describe_settings(find_facts(*_wanted(request)))

    table.get("/kleinod/model/files")(doors.get(files, private=False))
    table.get("/kleinod/model/settings")(doors.get(settings, private=False))


def describe_files(found: Any) -> dict[str, Any]:
    """An OwnFiles as the page reads it: `loader` and `sampler` hold widgets of these nodes."""
    names = {name: getattr(found, name) for name in ("diffusion_model", "text_encoder", "vae")}
    return {
        "ready": found.ready,
        "title": found.facts.title if found.facts else "",
        "loader": {**names, "variant": found.facts.variant} if found.ready else {},
        "missing": [asdict(weights) for weights in found.missing],
        "reason": found.reason,
        **describe_settings(found.facts),
    }


def describe_settings(facts: KleinFacts | None) -> dict[str, Any]:
    return {"sampler": facts.sampler_settings() if facts else {}}


def _wanted(request: web.Request) -> tuple[str, str]:
    variant = request.query.get("variant", "auto")
    return request.query.get("diffusion_model", ""), variant if variant in VARIANTS else "auto"
