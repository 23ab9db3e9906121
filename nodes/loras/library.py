"""models/loras as ComfyUI knows it: names, paths, hashes, and the check when a workflow is queued."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from ..base import seams
from ..base.doors import Doors
from ..base.values import LoraRow, Loras
from .bundled import list_bundled
from .hashes import HashBook
from .request import NO_LORA, SKIP
from .routes import add_routes
from .rows import parse_rows
from .search import ENDINGS, Found, LoraIndex, Unhashed

comfy = seams.modules("comfy.model_management", "comfy.utils")
folder_paths = seams.find("folder_paths")

FOLDER = "loras"
# What may be hashed while the server answers "queued"; more waits for the run, which has a progress bar.
MAX_BYTES_AT_QUEUE_TIME = 1024**3


def list_files() -> list[str]:
    """Names below models/loras that can hold a LoRA, then those that come with the pack."""
    names = folder_paths.get_filename_list(FOLDER) if folder_paths else []
    own = [name for name in names if name.lower().endswith(ENDINGS)]
    return own + [name for name in list_bundled() if name not in own]


def path_of(name: str) -> str:
    """The path of a listed name, "" for any other: nothing outside the folders is reachable by a name."""
    return read_index().files.get(name.replace("\\", "/"), "")


@functools.lru_cache(maxsize=1)
def find_book() -> HashBook:
    return HashBook(Path(folder_paths.get_system_user_directory("kleinod")))


def read_index() -> LoraIndex:
    bundled = list_bundled()
    paths = {name: folder_paths.get_full_path(FOLDER, name) or bundled.get(name) for name in list_files()}
    return LoraIndex({name: path for name, path in paths.items() if path}, find_book())


def find_with_progress(index: LoraIndex, row: LoraRow) -> Found:
    """`LoraIndex.find` under a running node: shows how far hashing is, and stops when asked to."""
    bar = comfy.utils.ProgressBar(100)

    def show(done: int, size: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(int(100 * done / max(1, size)), 100)

    return index.find(row, show)


def check_at_queue_time(rows: str | None, lora: str | None, missing_files: str | None) -> bool | str:
    """True, or the sentence that refuses the workflow. Inputs that are links arrive as None and wait."""
    try:
        own = _own_rows(rows, lora)
    except ValueError as error:
        return str(error)
    if missing_files in (SKIP, None) or not own.rows:
        return True
    index = read_index()
    for number, row in enumerate(own.rows, 1):
        if row.acts and row.file:
            try:
                index.find(row, max_bytes=MAX_BYTES_AT_QUEUE_TIME)
            except Unhashed:
                continue
            except ValueError as error:
                return f"LoRA row {number}: {error}"
    return True


def fingerprint(rows: str | None, lora: str | None) -> str:
    """Changes when a file that the rows name changes on disk."""
    states = []
    index = read_index()
    for row in _own_rows(rows, lora).rows:
        if row.acts and row.file:
            try:
                path = index.find(row, max_bytes=0).path
                stat = os.stat(path)
                states.append(f"{path} {stat.st_mtime_ns} {stat.st_size}")
            except (ValueError, OSError, Unhashed):
                states.append(f"{row.file} not found")
    return "\n".join(states)


def _own_rows(rows: str | None, lora: str | None) -> Loras:
    own = parse_rows(rows or "").rows
    return Loras(own if lora in (None, NO_LORA) else (*own, LoraRow(lora)))


def register_routes(doors: Doors) -> None:
    """Put the rows' routes on ComfyUI's server, if there is one."""
    server = seams.find_server()
    if server is not None:
        find_hash = find_book().find
        add_routes(server.routes, doors, path_of, lambda path: find_hash(path), lambda: read_index().files)


def find_hashes(found: Sequence[Found | None]) -> dict[str, str]:
    """Remembered hashes of found files, by name; none is computed for it."""
    places = [place for place in found if place is not None]
    hashes = {place.name: find_book().remembered(place.path) for place in places}
    return {name: digest for name, digest in hashes.items() if digest}
