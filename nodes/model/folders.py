"""Files on offer: what lies in ComfyUI's model folders, where it lies, and whether it changed."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..base import seams
from ..base.errors import InputError
from ..base.sentences import say
from .choices import AUTOMATIC, NANO, LoaderRequest, is_gguf

comfy_nodes = seams.find("nodes")
folder_paths = seams.find("folder_paths")

TAEF2 = "taef2"


def list_diffusion_models() -> list[str]:
    files = _names("diffusion_models")
    return [NANO, *files, *_gguf_files("unet_gguf", "diffusion_models")]


def list_text_encoders() -> list[str]:
    return [*_names("text_encoders"), *_gguf_files("clip_gguf", "text_encoders")]


def list_vaes() -> list[str]:
    """Files of the vae folder, and taef2 when both its halves lie in vae_approx."""
    return [*_names("vae"), *([TAEF2] if _taef2_halves() else [])]


def _names(folder: str) -> list[str]:
    """Files in one of ComfyUI's model folders. Every start and page load comes here: none is no error."""
    return folder_paths.get_filename_list(folder) if folder_paths else []


def _taef2_halves() -> list[str]:
    names = _names("vae_approx")
    found = [
        [name for name in names if name.startswith(f"{TAEF2}_{half}.")] for half in ("encoder", "decoder")
    ]
    return [name for half in found for name in half] if all(found) else []


def _gguf_files(key: str, folder: str) -> list[str]:
    # Without ComfyUI-GGUF nothing lists .gguf files; shown all the same, they lead to a sentence instead of a
    # riddle.
    if not folder_paths:
        return []
    if key in folder_paths.folder_names_and_paths:
        return folder_paths.get_filename_list(key)
    found: set[str] = set()
    for root in folder_paths.get_folder_paths(folder):
        # Not ComfyUI's recursive_search, which works out the path of every file: each page load comes here.
        for place, subfolders, files in os.walk(root, followlinks=True):
            subfolders[:] = [name for name in subfolders if name != ".git"]
            found.update(os.path.relpath(os.path.join(place, name), root) for name in files if is_gguf(name))
    return sorted(found)


def fingerprint(request: LoaderRequest) -> str:
    """Changes when a picked file is replaced (size or time), or, for "automatic", when any candidate is."""
    if request.diffusion_model == NANO:
        return NANO
    encoders = list_text_encoders() if request.text_encoder == AUTOMATIC else [request.text_encoder]
    vaes = list_vaes() if request.vae == AUTOMATIC else [request.vae]
    picked = [("diffusion_models", request.diffusion_model)]
    picked += [("text_encoders", name) for name in encoders]
    for name in vaes:
        picked += [("vae_approx", half) for half in _taef2_halves()] if name == TAEF2 else [("vae", name)]
    return "|".join([repr(request), *(_stamp(folder, name) for folder, name in picked)])


def _stamp(folder: str, name: str) -> str:
    path = folder_paths.get_full_path(folder, name) if isinstance(name, str) else None
    try:
        status = os.stat(path) if path else None
    except OSError:
        status = None
    return f"{name}:{status.st_mtime_ns}:{status.st_size}" if status else f"{name}:?"


def path_of(folder: str, name: str) -> str:
    """Full path of a file picked in `folder`; FileNotFoundError in ComfyUI's words when it is gone."""
    return folder_paths.get_full_path_or_raise(folder, name)


def gguf_loader(node: str, field: str, name: str) -> Callable[..., tuple]:
    """The load function of one of ComfyUI-GGUF's nodes; ValueError naming that pack when it is missing."""
    loader = comfy_nodes.NODE_CLASS_MAPPINGS.get(node)
    if loader is None:
        raise InputError(
            say(
                '%1 "%2" is a GGUF file, which ComfyUI reads only with the pack ComfyUI-GGUF (city96): '
                "install that pack, or pick a .safetensors file.",
                field,
                name,
            )
        )
    return getattr(loader(), loader.FUNCTION)
