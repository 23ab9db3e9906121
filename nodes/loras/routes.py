"""What the rows of Klein LoRA Stack ask the server: two read-only routes under /kleinod/loras.

    GET /kleinod/loras/info?file=NAME      facts of a file (`info.py`), its sha256 and where its picture is
    GET /kleinod/loras/preview?file=NAME   that picture

Only names that ComfyUI lists in models/loras (or that come with the pack) are answered, and only pages of
this server are: other sites could neither read the answers nor should they make this machine read files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from aiohttp import web

from ..base.errors import InputError
from ..base.safetensors import read_header
from .info import Picture, describe_file, find_picture

FindPath = Callable[[str], str]
FindHash = Callable[[str], str]


def add_routes(table: web.RouteTableDef, find_path: FindPath, find_hash: FindHash) -> None:
    """find_path: the path of a listed name, "" for others. find_hash: the sha256 of a path."""

    @table.get("/kleinod/loras/info")
    async def info(request: web.Request) -> web.StreamResponse:
        _refuse_other_sites(request)
        try:
            name, path = _wanted(request, find_path)
            return web.json_response(await asyncio.to_thread(tell, name, path, find_hash))
        except (ValueError, OSError) as error:
            return web.json_response({"error": str(error)}, status=400)

    @table.get("/kleinod/loras/preview")
    async def preview(request: web.Request) -> web.StreamResponse:
        _refuse_other_sites(request)
        try:
            name, path = _wanted(request, find_path)
            picture = await asyncio.to_thread(_picture, name, path)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        if picture is None:
            return web.json_response({"error": f"{name} has no picture."}, status=404)
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
        return web.Response(body=picture.data, content_type=picture.kind, headers=headers)


def tell(name: str, path: str, find_hash: FindHash) -> dict[str, Any]:
    """The answer of the info route. Raises ValueError where the file is no sound safetensors file."""
    header = read_header(path, "lora", name)
    picture = f"/kleinod/loras/preview?file={quote(name)}" if find_picture(header, path) else ""
    return {**describe_file(header, path), "file": name, "sha256": find_hash(path), "preview": picture}


def _picture(name: str, path: str) -> Picture | None:
    return find_picture(read_header(path, "lora", name), path)


def _wanted(request: web.Request, find_path: FindPath) -> tuple[str, str]:
    name = request.query.get("file", "")
    path = find_path(name)
    if not path:
        raise InputError(f'"{name[:200]}" is not in models/loras.')
    return name, path


def _refuse_other_sites(request: web.Request) -> None:
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise web.HTTPForbidden(text="This address answers pages of this ComfyUI only.")
