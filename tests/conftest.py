"""How tests reach the pack.

`kleinod`       the whole pack, loaded the way ComfyUI loads it (needs ComfyUI: `COMFYUI_PATH`).
`kleinod_pure`  an alias of `nodes/` that skips every `__init__` that touches ComfyUI, for the pure modules.
Use one of them in a test, never both: each alias has its own copy of every class.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".runtime" / "comfyui")


def _alias_pure_modules() -> None:
    pure = types.ModuleType("kleinod_pure")
    pure.__path__ = [str(ROOT / "nodes")]
    sys.modules["kleinod_pure"] = pure


def _load_pack() -> None:
    sys.path.insert(0, str(COMFYUI))
    # Argument parsing must be switched on before the first comfy import, or `--cpu` is ignored and a GPU is needed.
    import comfy.options

    argv, sys.argv = sys.argv, ["main.py", "--cpu"]
    comfy.options.enable_args_parsing()
    import comfy.cli_args  # noqa: F401

    sys.argv = argv
    spec = importlib.util.spec_from_file_location(
        "kleinod", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    pack = importlib.util.module_from_spec(spec)
    sys.modules["kleinod"] = pack
    spec.loader.exec_module(pack)


_alias_pure_modules()
if (COMFYUI / "comfy").is_dir():
    _load_pack()


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT
