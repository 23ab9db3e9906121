"""Imports between the rooms of `nodes/` go down the written list, and nowhere else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

NODES = Path(__file__).resolve().parents[2] / "nodes"

# A room may import itself and the rooms named here; `nodes/__init__.py`, the list of nodes, imports all.
MAY_IMPORT = {
    "base": set(),
    "references": {"base"},
    "loras": {"base"},
    "remote": {"base"},
    "acceleration": {"base"},
    "model": {"base", "references"},
    "sampling": {"base", "references", "loras", "acceleration", "model"},
    "regions": {"base", "references", "loras", "acceleration", "model", "sampling"},
    "faces": {"base", "references", "loras", "acceleration", "model", "sampling", "regions"},
    "edits": {"base", "references", "loras", "acceleration", "model", "sampling", "regions"},
    "study": {"base", "references", "loras", "acceleration", "model", "sampling"},
    "service": {
        "base",
        "references",
        "loras",
        "remote",
        "acceleration",
        "model",
        "sampling",
        "regions",
        "faces",
    },
}
# What has still to move: each entry goes with the room that is rebuilt.
PENDING: set[tuple[str, str]] = set()


def list_room_imports() -> set[tuple[str, str, str]]:
    """(room, room it imports, file), over every import statement, wherever in a file it stands."""
    found = set()
    for file in NODES.rglob("*.py"):
        place = file.relative_to(NODES).with_suffix("").parts
        if len(place) < 2:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            target = [*place[: len(place) - node.level], *(node.module or "").split(".")]
            names = [name for name in target if name] or [alias.name for alias in node.names]
            for name in names[:1] if node.module or len(place) > node.level else names:
                found.add((place[0], name, "/".join(place)))
    return found


def test_imports_between_rooms_go_down() -> None:
    wrong = {
        (room, other, file)
        for room, other, file in list_room_imports()
        if other != room and other not in MAY_IMPORT[room] and (room, other) not in PENDING
    }
    assert wrong == set()


def test_only_what_serve_runs_imports_ray() -> None:
    root = NODES.parent
    importers = set()
    for folder in ("nodes", "cluster", "tools", "tests"):
        for file in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                if any(name.split(".")[0] in ("ray", "cluster") for name in names):
                    importers.add(
                        (file.relative_to(root).as_posix(), "ray" in {n.split(".")[0] for n in names})
                    )
    with_ray = {place for place, is_ray in importers if is_ray}
    assert with_ray == {
        f"cluster/{name}.py" for name in ("router", "worker", "front", "application", "deploy")
    }
    assert not [place for place, _ in importers if place.startswith("nodes/")], "the pack never imports it"


def test_nothing_is_pending_that_was_done() -> None:
    there = {(room, other) for room, other, _ in list_room_imports()}
    assert there >= PENDING, "remove what no longer imports upward"


def test_values_need_neither_torch_nor_comfyui() -> None:
    code = (
        "import sys, types; pure = types.ModuleType('pure'); pure.__path__ = [sys.argv[1]]\n"
        "sys.modules['pure'] = pure\n"
        "import pure.base.values, pure.base.references, pure.base.fields, pure.base.errors, pure.base.flux2\n"
        "print(sorted(name for name in ('torch', 'numpy', 'comfy', 'PIL') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(NODES)], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
