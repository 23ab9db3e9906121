"""What the browser tests share: both renderers, and a page on the session's ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.browser import RENDERERS, Studio, open_studio
from tools.launch.environment import Environment
from tools.launch.server import Server


@pytest.fixture(scope="module", params=list(RENDERERS))
def renderer(request: pytest.FixtureRequest) -> str:
    """Each test that names it runs once in each."""
    return request.param


@pytest.fixture(scope="module")
def own_server(
    request: pytest.FixtureRequest, comfy_environment: Environment, artifacts: Path
) -> Iterator[Server]:
    """A ComfyUI of a module's own, without a key in its environment: what is set there disturbs nobody."""
    log = artifacts / f"server-{request.module.__name__.rpartition('.')[2]}.log"
    with Server(comfy_environment, log=log, device="cpu") as server:
        server.start()
        yield server


@pytest.fixture(scope="module")
def studio(comfy_server: Server) -> Iterator[Studio]:
    """A fresh browser for a module's tests; each opens the page in the renderer that it wants."""
    with open_studio(comfy_server.client) as studio:
        yield studio
