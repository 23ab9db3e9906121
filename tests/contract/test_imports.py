"""Pure modules import without ComfyUI, and importing the pack costs nothing but the code: no network, no
thread, no file opened. Which room may import which: test_rooms.py."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.launch.environment import Environment

ROOT = Path(__file__).resolve().parents[2]

# The only modules that may import ComfyUI: the lists of nodes, the sockets, and the engine of each domain.
TOUCHES_COMFYUI = {
    "__init__.py",
    "base/field_inputs.py",
    "base/notices.py",
    "base/sockets.py",
    "acceleration/apply.py",
    "acceleration/calibration_files.py",
    "acceleration/inputs.py",
    "acceleration/nodes.py",
    "acceleration/patch.py",
    "study/calibrating.py",
    "study/engine.py",
    "study/nodes.py",
    "edits/inputs.py",
    "edits/nodes.py",
    "edits/painting.py",
    "faces/nodes.py",
    "faces/detectors.py",
    "faces/engine.py",
    "faces/inputs.py",
    "faces/mediapipe.py",
    "loras/nodes.py",
    "loras/core_adapters.py",
    "loras/engine.py",
    "loras/library.py",
    "loras/merging.py",
    "loras/patches.py",
    "model/nodes.py",
    "model/engine.py",
    "model/folders.py",
    "model/nano.py",
    "model/own_files.py",
    "model/text_engine.py",
    "references/nodes.py",
    "references/engine.py",
    "regions/painter.py",
    "regions/sampler.py",
    "remote/inputs.py",
    "remote/nodes.py",
    "remote/session.py",
    "sampling/fast_nodes.py",
    "sampling/nodes.py",
    "service/graph_values.py",
    "service/session.py",
    "sampling/engine.py",
    "sampling/kept.py",
    "sampling/patches.py",
    "sampling/progress.py",
}
CORE = sorted((ROOT / "tests" / "core").glob("*.py"))
MODULES = sorted(file.relative_to(ROOT / "nodes").as_posix() for file in (ROOT / "nodes").rglob("*.py"))
PURE = [name for name in MODULES if name not in TOUCHES_COMFYUI and not name.endswith("/__init__.py")]

_IMPORT_PURE = """
import importlib, json, sys, types

class NoComfyUI:
    OUTLAWED = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "node_helpers",
                "nodes", "latent_preview", "server", "execution"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.OUTLAWED:
            raise ImportError(f"a pure module imports {name}")

sys.meta_path.insert(0, NoComfyUI())
pure = types.ModuleType("kleinod_pure")
pure.__path__ = [sys.argv[1]]
sys.modules["kleinod_pure"] = pure
failures = {}
for name in sys.argv[2:]:
    try:
        importlib.import_module("kleinod_pure." + name.removesuffix(".py").replace("/", "."))
    except Exception as error:
        failures[name] = repr(error)
print(json.dumps(failures))
"""

_WATCH_IMPORT = """
import asyncio, json, sys, threading
from pathlib import Path
from types import ModuleType

tools = ModuleType("tools")
tools.__path__ = [sys.argv[1] + "/tools"]
sys.modules["tools"] = tools
from tools.launch.pack import enable_comfyui, load_pack

enable_comfyui(Path(sys.argv[2]))
sys.dont_write_bytecode = True
import nodes
asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))

loop = asyncio.new_event_loop()  # has sockets of its own
events = []
watching = True
def is_code(file):
    return str(file).endswith((".py", ".pyc", ".so", ".pyd"))
def watch(event, arguments):
    if not watching:
        return
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.spawn", "os.fork", "urllib.")):
        events.append([event, repr(arguments)])
    elif event == "open" and not (is_code(arguments[0]) and arguments[1] in ("r", "rb")):
        events.append([event, repr(arguments)])
    elif event in ("os.mkdir", "os.rename", "os.remove", "_thread.start_new_thread"):
        events.append([event, repr(arguments)])
sys.addaudithook(watch)
threads = threading.active_count()
pack = load_pack(Path(sys.argv[1]))
loop.run_until_complete(pack.comfy_entrypoint())
started = threading.active_count() - threads
watching = False
print(json.dumps({"events": events, "threads": started, "ultralytics": "ultralytics" in sys.modules}))
"""


def _run(code: str, *arguments: str) -> dict:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_pure_modules_import_without_comfyui() -> None:
    assert _run(_IMPORT_PURE, str(ROOT / "nodes"), *PURE) == {}


def test_pure_tests_ask_for_nothing_that_takes_long() -> None:
    """tests/core never loads ComfyUI (tests/conftest.py), so that one of its files answers in seconds."""
    imports = r"^\s*(from|import) (kleinod|comfy\w*|folder_paths|node_helpers)\b"
    asking = re.compile(rf"{imports}|\bcomfy_(server|environment)\b", re.MULTILINE)
    found = {
        file.name: hit.group() for file in CORE if (hit := asking.search(file.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_the_list_of_exceptions_is_not_a_wish_list() -> None:
    """An entry that imports nothing of ComfyUI would hide a later import."""
    words = ("import comfy", "from comfy", "seams.find(", "seams.modules(", "seams.find_server(")
    idle = [
        name
        for name in sorted(TOUCHES_COMFYUI & set(MODULES))
        if not any(word in (ROOT / "nodes" / name).read_text(encoding="utf-8") for word in words)
    ]
    assert idle == []


@pytest.mark.parametrize("domain", sorted(path.name for path in (ROOT / "nodes").iterdir() if path.is_dir()))
def test_domain_packages_are_empty(domain: str) -> None:
    if domain != "__pycache__":
        assert (ROOT / "nodes" / domain / "__init__.py").read_text(encoding="utf-8").strip() == ""


def test_importing_the_pack_does_nothing_else(comfy_environment: Environment) -> None:
    seen = _run(_WATCH_IMPORT, str(ROOT), str(comfy_environment.comfyui))
    assert seen == {"events": [], "threads": 0, "ultralytics": False}


def test_whatever_the_tools_take_from_the_pack_is_there() -> None:
    """Parts of a bench may not run for weeks; a module or name that was renamed since is found here."""
    missing = []
    for file in sorted((ROOT / "tools").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kleinod."):
                missing += [f"{file.name}: {name}" for name in _absent(node)]
    assert missing == []


def _absent(node: ast.ImportFrom) -> list[str]:
    try:
        module = importlib.import_module(str(node.module))
    except ModuleNotFoundError:
        return [str(node.module)]
    return [
        f"{node.module}.{alias.name}"
        for alias in node.names
        if not hasattr(module, alias.name) and importlib.util.find_spec(f"{node.module}.{alias.name}") is None
    ]
