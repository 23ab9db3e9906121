"""ComfyUI's own BFL node, as ComfyUI ships it, asks us instead of comfy.org: only the address is another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from comfy.cli_args import args
from comfy_api.v0_0_2 import io
from comfy_api_nodes import nodes_bfl
from server import PromptServer

from tests.remote.test_own_server import run_own_server


class Page:
    """Where the node tells of its progress."""

    client_id = None

    def __init__(self) -> None:
        self.texts: list[str] = []

    def send_progress_text(self, text: str, *rest: object) -> None:
        self.texts.append(text)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    page = Page()
    monkeypatch.setattr(PromptServer, "instance", page, raising=False)
    return page


def run_node(key: str, **inputs: object) -> torch.Tensor:
    hidden = {io.Hidden.api_key_comfy_org: key, io.Hidden.unique_id: "1"}
    node = nodes_bfl.Flux2ProImageNode.PREPARE_CLASS_CLONE({"hidden_inputs": hidden})
    given = {"prompt": "a fox", "width": 256, "height": 288, "seed": 9, "prompt_upsampling": False} | inputs
    return asyncio.run(node.execute(**given)).args[0]


def test_it_gets_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Page) -> None:
    own = {"flux-2-pro": "flux-2-klein-9b.safetensors"}
    with run_own_server(tmp_path, models=own) as (url, key, painter):
        monkeypatch.setattr(args, "comfy_api_base", url)
        painter.seconds = 1.0  # so that it is asked about while it runs, too
        pictures = torch.rand(2, 64, 96, 3)
        drawn = run_node(key, images=pictures)
        assert drawn.shape[:3] == (1, 288, 256)
        graph = painter.graphs[0]
        assert graph["loader"]["inputs"]["diffusion_model"] == "flux-2-klein-9b.safetensors"
        assert graph["prompt"]["inputs"]["positive"] == "a fox"
        assert (graph["sampler"]["inputs"]["seed"], graph["sampler"]["inputs"]["steps"]) == (9, 4)
        assert "images.image_2" in graph["references"]["inputs"]
        with pytest.raises(Exception, match="Invalid API key"):
            run_node("wrong")
        assert len(painter.graphs) == 1
