"""Our own remote nodes take a Kleinod that answers for the service: one wire, three places."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from kleinod_pure.service.dialects.runware_channel import Channels
from kleinod_pure.service.web_adapter import WebAdapter

from tests.core.api_stage import Painter, run_service


@contextmanager
def run_own_server(folder: Path) -> Iterator[tuple[str, str, Painter]]:
    """(address, key, painter) of a server in a thread."""
    told: dict[str, object] = {}
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        painter = Painter()
        async with run_service(folder, painter=painter) as stage:
            app = web.Application()
            app.router.add_route("*", "/{tail:.*}", WebAdapter(Channels(stage.service)).handle)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            told.update(url=f"http://127.0.0.1:{runner.addresses[0][1]}/kleinod/api", key=stage.key)
            told["painter"] = painter
            ready.set()
            await asyncio.to_thread(over.wait)
            await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield told["url"], told["key"], told["painter"]
    finally:
        over.set()
        thread.join(30)


def test_runware_and_bfl_nodes_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetch, runware_request, bfl_request, make_engine
) -> None:
    with run_own_server(tmp_path / "api") as (url, key, painter):
        for name in ("RUNWARE", "BFL"):
            monkeypatch.setenv(f"KLEINOD_{name}_URL", f"{url}/{name.lower()}")
            monkeypatch.setenv(f"{name}_API_KEY", key)
        engine = make_engine()
        result = fetch(runware_request(number_results=2, seed=5, steps=9), by=engine)
        assert [image.seed for image in result.images] == [5, 6]
        assert sorted(graph["sampler"]["inputs"]["steps"] for graph in painter.graphs) == [9, 9]
        again = fetch(runware_request(number_results=2, seed=5, steps=9), by=engine)
        assert len(painter.graphs) == 2 and len(again.images) == 2, "paid for once"
        result = fetch(bfl_request(seed=7), by=engine)
        assert [image.seed for image in result.images] == [7]
        assert painter.graphs[-1]["loader"]["inputs"]["diffusion_model"] == "flux-2-klein-4b.safetensors"
