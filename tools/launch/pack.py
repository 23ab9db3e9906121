"""Loads the pack into this process the way ComfyUI does, for tests and benchmarks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

PACK_MODULE = "kleinod"


def enable_comfyui(comfyui: Path, arguments: tuple[str, ...] = ("--cpu",)) -> None:
    """Make ComfyUI importable, with `arguments` as main.py would have got them."""
    sys.path.insert(0, str(comfyui))
    # Argument parsing must be switched on before the first comfy import, or `--cpu` is ignored.
    import comfy.options

    given, sys.argv = sys.argv, ["main.py", *arguments]
    comfy.options.enable_args_parsing()
    import comfy.cli_args  # noqa: F401

    sys.argv = given


def load_pack(root: Path) -> ModuleType:
    """Import the pack's root as the module `kleinod`, whatever its folder is called."""
    spec = importlib.util.spec_from_file_location(
        PACK_MODULE, root / "__init__.py", submodule_search_locations=[str(root)]
    )
    pack = importlib.util.module_from_spec(spec)
    sys.modules[PACK_MODULE] = pack
    spec.loader.exec_module(pack)
    return pack
