"""The blueprints as ComfyUI's server offers them to the page."""

from __future__ import annotations

import json

import pytest

from tools.archive import list_published
from tools.launch.server import Server
from tools.shipped.blueprints import BLUEPRINTS, FOLDER, ROOT

pytestmark = pytest.mark.server


def test_the_server_lists_them_under_the_packs_name(comfy_server: Server) -> None:
    listed = comfy_server.client.get_json("/global_subgraphs")
    module = comfy_server.client.get_json("/object_info/KleinodLoader")["KleinodLoader"]["python_module"]
    own = {key: entry for key, entry in listed.items() if entry["info"]["node_pack"] == module}
    assert sorted(entry["name"] for entry in own.values()) == sorted(BLUEPRINTS)
    assert {entry["source"] for entry in own.values()} == {"custom_node"}
    for key, entry in own.items():
        served = comfy_server.client.get_json(f"/global_subgraphs/{key}")["data"]
        file = FOLDER / f"{entry['name']}.json"
        assert json.loads(served) == json.loads(file.read_text(encoding="utf-8"))


def test_they_are_published() -> None:
    assert {f"subgraphs/{name}.json" for name in BLUEPRINTS} <= set(list_published(ROOT))
