"""Where requests as JSON and the API that answers meet ComfyUI: its server, its folders, its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..base import seams
from ..base.doors import Doors, write_to_console
from ..base.errors import InputError
from ..base.files import write_bytes
from ..base.sentences import say
from ..faces.detectors import list_detectors
from ..loras.library import list_files
from ..model.folders import list_diffusion_models
from ..remote.errors import Unsafe
from ..remote.images import decode, sniff
from ..remote.session import find_folder
from .comfy_executor import ComfyExecutor
from .graph_values import copy_request
from .host import Host, Surroundings
from .routes import add_api_routes, add_routes
from .service import Machine

folder_paths = seams.find("folder_paths")

_ENDINGS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


def register_routes(doors: Doors) -> None:
    """Put them on ComfyUI's server, if there is one."""
    server = seams.find_server()
    if server is None:
        return
    add_routes(server.routes, doors, copy_request, keep_picture)
    machine = Machine(list_diffusion_models, list_files, list_detectors)
    host = Host(Surroundings(find_folder, find_address, make_executor, machine, write_to_console))
    add_api_routes(server.routes, doors, host)
    server.app.on_startup.append(host.on_startup)
    server.app.on_cleanup.append(host.on_cleanup)


def find_address() -> str:
    """Where this ComfyUI answers, asked from this machine."""
    args = seams.find("comfy.cli_args:args")
    places = [place.strip() for place in str(args.listen).split(",")]
    name = "127.0.0.1"
    if not {"0.0.0.0", "127.0.0.1", "localhost"} & set(places):
        first = places[0]
        name = "[::1]" if first in ("::", "::1") else f"[{first}]" if ":" in first else first
    scheme = "https" if args.tls_keyfile and args.tls_certfile else "http"
    return f"{scheme}://{name}:{args.port}"


def make_executor() -> ComfyExecutor:
    """This ComfyUI, through its own server. Its certificate, if it has one, is for another name."""
    return ComfyExecutor(find_address(), discard_picture, verify=False)


def discard_picture(entry: Mapping[str, Any]) -> None:
    """Take away a temporary file that was read; any other stays."""
    folder = Path(folder_paths.get_temp_directory()).resolve()
    file = (folder / str(entry.get("subfolder", "")) / str(entry.get("filename", ""))).resolve()
    if entry.get("type") == "temp" and folder in file.parents:
        with suppress(OSError):
            os.unlink(file)


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
        raise InputError(
            say("%1 is no PNG, JPEG or WebP that can be opened.", f"inputs.referenceImages[{number - 1}]")
        )
    name = f"kleinod-{hashlib.sha256(data).hexdigest()[:16]}.{_ENDINGS[kind]}"
    file = Path(folder_paths.get_input_directory()) / name
    if not file.exists():
        try:
            write_bytes(file, data)
        except OSError as error:
            words = error.strerror or type(error).__name__
            raise InputError(say("ComfyUI's input folder cannot be written: %1.", words)) from None
    return name
