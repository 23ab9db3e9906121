"""What the rows of Klein LoRA Stack ask the server: read-only routes under /kleinod/loras.

    GET /kleinod/loras/info?file=NAME      facts of a file (`info.py`), its sha256 and where its picture is
    GET /kleinod/loras/preview?file=NAME   that picture
    GET /kleinod/loras/models              what each listed file was made for, by what is in it

Only names that ComfyUI lists in models/loras (or that come with the pack) are answered, and only to whom the
doors of the pack (`base/doors.py`) let in.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from aiohttp import web

from ..base.doors import Doors, answers_sentences
from ..base.errors import InputError
from ..base.safetensors import read_header
from ..base.sentences import say
from .info import Picture, describe_file, find_picture
from .plan import guess_model

FindPath = Callable[[str], str]
FindHash = Callable[[str], str]
ListPaths = Callable[[], Mapping[str, str]]


def add_routes(
    table: web.RouteTableDef, doors: Doors, find_path: FindPath, find_hash: FindHash, list_paths: ListPaths
) -> None:
    """find_path: the path of a listed name, "" for others. find_hash: the sha256 of a path. list_paths: every
    listed name with its path.
    """

    async def models(request: web.Request) -> web.Response:
        doors.check(request, private=False)
        return web.json_response({"models": await asyncio.to_thread(tell_models, list_paths())})

    def info(request: web.Request) -> dict[str, Any]:
        name, path = _wanted(request, find_path)
        with _reading(name):
            return tell(name, path, find_hash)

    async def preview(request: web.Request) -> web.StreamResponse:
        doors.check(request, private=False)
        name, path = _wanted(request, find_path)
        picture = await asyncio.to_thread(_picture, name, path)
        if picture is None:
            return web.json_response({"error": f"{name} has no picture."}, status=404)
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
        return web.Response(body=picture.data, content_type=picture.kind, headers=headers)

    table.get("/kleinod/loras/info")(doors.get(info, private=False))
    table.get("/kleinod/loras/preview")(answers_sentences(preview))
    table.get("/kleinod/loras/models")(answers_sentences(models))


def tell(name: str, path: str, find_hash: FindHash) -> dict[str, Any]:
    """The answer of the info route. Raises ValueError where the file is no sound safetensors file."""
    header = read_header(path, "lora", name)
    picture = f"/kleinod/loras/preview?file={quote(name)}" if find_picture(header, path) else ""
    return {**describe_file(header, path), "file": name, "sha256": find_hash(path), "preview": picture}


def tell_models(paths: Mapping[str, str]) -> dict[str, str]:
    """What each file was made for; "" where nothing tells, or the file cannot be read. Only headers are read,
    and those once for as long as a file stays as it is.
    """
    return {name: _model_of(path) for name, path in paths.items()}


def _model_of(path: str) -> str:
    try:
        state = os.stat(path)
        return _read_model(path, state.st_mtime_ns, state.st_size)
    except (OSError, ValueError):  # of a file that is no sound one, its row tells more
        return ""


@functools.lru_cache(maxsize=4096)
def _read_model(path: str, changed: int, size: int) -> str:
    return guess_model(read_header(path, "lora", os.path.basename(path)))


def _picture(name: str, path: str) -> Picture | None:
    with _reading(name):
        return find_picture(read_header(path, "lora", name), path)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(say("%1 cannot be read: %2.", name, error.strerror or error)) from None


def _wanted(request: web.Request, find_path: FindPath) -> tuple[str, str]:
    name = request.query.get("file", "")
    path = find_path(name)
    if not path:
        raise InputError(say('"%1" is not in models/loras.', name[:200]))
    return name, path
