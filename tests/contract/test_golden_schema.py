"""Saved workflows hang on ids, order, types, ranges and defaults: they may only change on purpose.

After a wanted change: `KLEINOD_WRITE_GOLDEN=1 python3 run.py test tests/contract -k golden`, then read the
diff. What renames, removes or moves something cannot be written: the message says what to do instead.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from comfy_api.v0_0_2 import io
from kleinod.nodes import NODES

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "schema.json"
# What a saved workflow or a wire depends on; wording may change freely.
KEPT = (
    "input",
    "input_order",
    "output",
    "output_name",
    "output_is_list",
    "output_node",
    "display_name",
    "category",
)
WORDING = ("tooltip", "display_name", "placeholder")

RENAMED = (
    "{} is gone, and every saved workflow that uses it would break. Bring the name back, or let ComfyUI "
    "rewrite those workflows: give the node a new id, register what became of the old one in "
    "KleinodExtension.on_load (`await ComfyAPI().node_replacement.register(io.NodeReplace(...))`; every "
    "required input mapped, as ComfyUI's comfy_extras/nodes_replacements.py does), run a workflow of the old "
    "id in tests/server, and only then take the old entry out of tests/golden/schema.json by hand."
)
MOVED = (
    "{} changed the order or the groups of its inputs, or its outputs: saved workflows store both by "
    "position and would load wrong values. Put new ones at the end."
)
CHANGED = (
    "{} differs from the golden schema. Is it meant, and do old workflows still load and give the same "
    "picture? Then: KLEINOD_WRITE_GOLDEN=1 python3 run.py test tests/contract -k golden"
)


@pytest.fixture
def no_model_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same file pickers on every machine: a ComfyUI in which nobody has put a model yet."""
    import folder_paths

    for name, (_, extensions) in list(folder_paths.folder_names_and_paths.items()):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([], extensions))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))


def describe(node: type[io.ComfyNode]) -> dict:
    info = node.GET_NODE_INFO_V1()
    kept = {name: info[name] for name in KEPT}
    return json.loads(json.dumps(_without_wording(kept), default=str))


def _without_wording(value):
    if isinstance(value, dict):
        return {key: _without_wording(entry) for key, entry in value.items() if key not in WORDING}
    if isinstance(value, (list, tuple)):
        return [_without_wording(entry) for entry in value]
    return value


def find_vanished(golden: dict, current: dict) -> list[str]:
    """Ids and inputs of the golden schema that are no more, as `Node` or `Node.input`."""
    vanished = sorted(set(golden) - set(current))
    for name in set(golden) & set(current):
        before, now = golden[name]["input_order"], current[name]["input_order"]
        kept = {entry for names in now.values() for entry in names}
        lost = [entry for names in before.values() for entry in names if entry not in kept]
        vanished += [f"{name}.{entry}" for entry in lost]
    return sorted(vanished)


def find_moved(golden: dict, current: dict) -> list[str]:
    """Nodes whose widgets or outputs do not merely grow at the end; both are saved by position."""
    moved = []
    for name in sorted(set(golden) & set(current)):
        before, now = golden[name], current[name]
        pairs = [(now["input_order"].get(group, []), names) for group, names in before["input_order"].items()]
        pairs.append((now["output"], before["output"]))
        if any(after[: len(names)] != names for after, names in pairs):
            moved.append(name)
    return moved


def test_schema_equals_the_golden_file(no_model_files: None) -> None:
    current = {node.__name__: describe(node) for node in NODES}
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    # Both hold while the golden file is being rewritten, too: no rewriting makes a rename harmless.
    vanished, moved = find_vanished(golden, current), find_moved(golden, current)
    assert vanished == [], RENAMED.format(", ".join(vanished))
    assert moved == [], MOVED.format(", ".join(moved))
    if os.environ.get("KLEINOD_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(current, indent=1) + "\n", encoding="utf-8")
        return
    changed = [name for name, schema in current.items() if schema != golden.get(name)]
    assert changed == [], CHANGED.format(", ".join(changed))


OLD = {
    "KleinodOld": {
        "input_order": {"required": ["model", "steps"], "optional": ["vae"]},
        "output": ["IMAGE", "STRING"],
    }
}


@pytest.mark.parametrize(
    ("change", "vanished", "moved"),
    [
        ({"required": ["model", "steps", "seed"]}, [], []),
        ({"required": ["model"], "optional": ["vae", "steps"]}, [], ["KleinodOld"]),
        ({"required": ["model", "count"]}, ["KleinodOld.steps"], ["KleinodOld"]),
        ({"required": ["steps", "model"]}, [], ["KleinodOld"]),
        ({"required": ["model", "seed", "steps"]}, [], ["KleinodOld"]),
    ],
)
def test_what_breaks_saved_workflows_is_found(change: dict, vanished: list, moved: list) -> None:
    old = OLD["KleinodOld"]
    current = {"KleinodOld": {**old, "input_order": {**old["input_order"], **change}}}
    assert find_vanished(OLD, current) == vanished
    assert find_moved(OLD, current) == moved


def test_a_renamed_node_and_a_moved_output_are_found() -> None:
    old = OLD["KleinodOld"]
    assert find_vanished(OLD, {"KleinodNew": old}) == ["KleinodOld"]
    swapped = {"KleinodOld": {**old, "output": ["STRING", "IMAGE"]}}
    assert find_moved(OLD, swapped) == ["KleinodOld"]
