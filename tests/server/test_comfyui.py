"""The pack inside the real ComfyUI: what it registers and how the server behaves with it."""

from __future__ import annotations

import pytest

from tools.launch.server import Server

pytestmark = pytest.mark.server


def test_every_node_is_registered(comfy_server: Server) -> None:
    from kleinod.nodes import NODES

    known = comfy_server.client.get_json("/object_info")
    assert {node.__name__ for node in NODES} <= set(known)
    assert all(known[node.__name__]["python_module"] == "custom_nodes.kleinod" for node in NODES)
