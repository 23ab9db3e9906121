"""Where requests as JSON meet ComfyUI: its server and its input folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import folder_paths

from ..base.doors import Doors
from ..base.errors import InputError
from ..base.files import write_bytes
from ..remote.errors import Unsafe
from ..remote.images import decode, sniff
from .graph_values import copy_request
from .routes import add_routes

_ENDINGS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


def register_routes(doors: Doors) -> None:
    """Put them on ComfyUI's server, if there is one."""
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is not None:
        add_routes(server.routes, doors, copy_request, keep_picture)


def keep_picture(data: bytes, number: int) -> str:
    """Write a reference picture of a request into ComfyUI's input folder; its name there. Raises InputError
    for what is no picture.
    """
    kind = sniff(data)
    try:
        decode(data)
    except Unsafe:
        kind = None
    if kind is None:
        raise InputError(f"inputs.referenceImages[{number - 1}] is no PNG, JPEG or WebP that can be opened.")
    name = f"kleinod-{hashlib.sha256(data).hexdigest()[:16]}.{_ENDINGS[kind]}"
    file = Path(folder_paths.get_input_directory()) / name
    if not file.exists():
        try:
            write_bytes(file, data)
        except OSError as error:
            words = error.strerror or type(error).__name__
            raise InputError(f"ComfyUI's input folder cannot be written: {words}.") from None
    return name
