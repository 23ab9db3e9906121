"""Saved workflows hang on ids, order, types, ranges and defaults: they may only change on purpose.

After a wanted change: `KLEINOD_WRITE_GOLDEN=1 python3 run.py test -k golden`, then read the diff.
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


def test_schema_equals_the_golden_file(no_model_files: None) -> None:
    current = {node.__name__: describe(node) for node in NODES}
    if os.environ.get("KLEINOD_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(current, indent=1) + "\n", encoding="utf-8")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert set(current) == set(golden), "nodes were added or removed"
    for name, schema in current.items():
        assert schema == golden[name], f"{name} changed: saved workflows of it may break"


def test_widgets_only_grow_at_the_end(no_model_files: None) -> None:
    """Widgets are saved by position. This holds even while the golden file is being rewritten."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for node in NODES:
        order = describe(node)["input_order"]
        for group, names in golden.get(node.__name__, {}).get("input_order", {}).items():
            assert order[group][: len(names)] == names
