"""Our own remote nodes take a Kleinod that answers for the service: one wire, three places."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from aiohttp import web
from kleinod_pure.base.errors import InputError
from kleinod_pure.remote import routes
from kleinod_pure.remote.engine import Engine
from kleinod_pure.remote.errors import NoKey, Refused
from kleinod_pure.remote.estimate import estimate
from kleinod_pure.remote.own_servers import check_address
from kleinod_pure.remote.results import describe
from kleinod_pure.remote.services import find_service
from kleinod_pure.remote.services.base import Answer
from kleinod_pure.service.dialects.runware_channel import Channels
from kleinod_pure.service.web_adapter import WebAdapter

from tests.core.api_stage import Painter, run_service
from tests.emulator import Emulator


@contextmanager
def run_own_server(folder: Path, **settings: Any) -> Iterator[tuple[str, str, Painter]]:
    """(address, key, painter) of a server in a thread."""
    told: dict[str, object] = {}
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        painter = Painter()
        async with run_service(folder, painter=painter, **settings) as stage:
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


def ask(engine: Engine, route: str, /, **values: object) -> object:
    """What a route of the settings' panel does."""
    return getattr(routes, route)(engine, values)


def test_a_profile_names_the_server_and_reports_say_where_it_ran(
    tmp_path: Path, emulator: Emulator, fetch, runware_request, bfl_request, make_engine
) -> None:
    with run_own_server(tmp_path / "api") as (url, key, painter):
        host = url.split("/")[2]
        engine = make_engine()
        told = ask(engine, "save_server", name="desk", address=f"{url}/runware/v1", key=key)
        assert told == [{"name": "desk", "address": url, "hint": f"...{key[-4:]}"}]
        assert ask(engine, "test_server", name="desk")["message"].startswith(f"desk answers at {host}")
        ask(engine, "save_server", name="wrong", address=f"{url}/elsewhere", key=key)
        assert "nothing answers API requests" in ask(engine, "test_server", name="wrong")["message"]
        result = fetch(runware_request(profile="desk", seed=5, number_results=2), by=engine)
        assert [image.seed for image in result.images] == [5, 6] and len(painter.graphs) == 2
        account = describe(result, (256, 192))
        assert (account["profile"], account["host"]) == ("desk", host)
        assert (result.cost_usd, result.estimate_usd) == (None, 0.0), "nobody charges for it"
        result = fetch(bfl_request(profile="desk", seed=7), by=engine)
        assert describe(result, (256, 192))["host"] == host and len(painter.graphs) == 3
        assert engine.ledger.spent_since(0) == 0 and emulator.book.accepted == 0
        assert estimate(engine, "bfl", {"profile": "desk"})["server"] == "desk"
        assert estimate(engine, "bfl", {"profile": "default"})["usd"] > 0
        # The same request on the paid account is another job.
        fetch(runware_request(seed=5, number_results=2), by=engine)
        assert emulator.book.accepted == 1 and len(painter.graphs) == 3


def test_a_job_goes_only_where_its_key_belongs(
    tmp_path: Path, emulator: Emulator, fetch, runware_request, make_engine
) -> None:
    with run_own_server(tmp_path / "api") as (url, key, painter):
        engine = make_engine()
        ask(engine, "save_server", name="desk", address=url, key=key)
        job = fetch(runware_request(profile="desk", seed=5), by=engine).job
        assert engine.store.read(engine.ledger.items(job.id)[0].file)
        assert engine.recover(job.id).result(30).images[0].seed == 5
        ask(engine, "save_server", name="desk", address="http://127.0.0.1:9", key="another-key-1234")
        engine.ledger.update(job.id, state="accepted")
        engine.ledger.forget_items(job.id)
        with pytest.raises(Refused, match="'desk' is now 127.0.0.1:9"):
            engine.recover(job.id).result(30)
        ask(engine, "clear_server", name="desk")
        with pytest.raises(Refused, match="no server named 'desk'"):
            engine.recover(job.id).result(30)
        with pytest.raises(NoKey, match="profile 'desk'"):
            fetch(runware_request(profile="desk", seed=6), by=engine)
        assert emulator.book.accepted == 0 and key not in (tmp_path / "__kleinod" / "keys.json").read_text()


def test_a_lost_answer_is_asked_for_and_never_drawn_twice(
    tmp_path: Path, emulator: Emulator, fetch, bfl_request, make_engine
) -> None:
    """BFL itself knows no repeated request; an own server does. The sender died before the answer came."""
    with run_own_server(tmp_path / "api") as (url, key, painter):
        engine = make_engine()
        ask(engine, "save_server", name="desk", address=url, key=key)
        request = bfl_request(profile="desk", seed=3)
        placed = replace(request, service="own-bfl", base=f"{url}/bfl", estimate_usd=0.0)
        for sent in (True, False):
            job, _ = engine.ledger.claim(placed)
            if sent:
                headers = {"x-key": key, "Idempotency-Key": job.id}
                answer = requests.post(f"{url}/bfl/v1/{job.endpoint}", json=request.body, headers=headers)
                assert answer.status_code == 200
            assert [image.seed for image in fetch(request, by=engine).images] == [3]
            assert len(painter.graphs) == (1 if sent else 2)
            request = bfl_request(profile="desk", seed=3, prompt="another")
            placed = replace(placed, body=request.body)


def test_a_server_that_does_not_let_us_in_is_not_called_a_wrong_key() -> None:
    service = find_service("own-runware")
    problem = "This API answers its own machine only."
    told = {"errors": [{"code": "forbiddenHost", "message": problem}]}
    with pytest.raises(Refused, match=problem):
        service.read_balance(Answer(403, told))
    with pytest.raises(PermissionError):
        service.read_balance(Answer(401, {"errors": [{"code": "invalidApiKey", "message": "x"}]}))


@pytest.mark.parametrize(
    ("address", "plain", "found"),
    [
        ("https://pictures.example.com", False, "https://pictures.example.com/kleinod/api"),
        ("https://pictures.example.com/gpu/bfl/v1/", False, "https://pictures.example.com/gpu"),
        ("192.168.1.20:8188", True, "http://192.168.1.20:8188/kleinod/api"),
        ("http://127.0.0.1:8188/kleinod/api/openai/v1", False, "http://127.0.0.1:8188/kleinod/api"),
        ("http://[fd00::7]:8188", True, "http://[fd00::7]:8188/kleinod/api"),
        ("http://192.168.1.20:8188", False, None),
        ("http://workstation:8188", False, None),
        ("ftp://192.168.1.20", True, None),
        ("https://user:word@host", True, None),
        ("https://host/?a=1", True, None),
        ("https://host:port", True, None),
        ("", True, None),
    ],
)
def test_addresses_and_the_consent_to_plain_http(address: str, plain: bool, found: str | None) -> None:
    if found is None:
        with pytest.raises(InputError, match="without encryption|must be that of a ComfyUI"):
            check_address(address, plain)
    else:
        assert check_address(address, plain) == found


def test_names_of_accounts_and_servers_are_never_mixed_up(make_engine) -> None:
    engine = make_engine()
    at = {"address": "http://127.0.0.1:9", "key": "kleinod-key-of-a-server"}
    ask(engine, "save_server", name="desk", **at)
    assert engine.keys.holds("kleinod-key-of-a-server")
    with pytest.raises(InputError, match="server of your own"):
        ask(engine, "save_key", service="runware", profile="desk", key="some-key-1234")
    ask(engine, "save_key", service="runware", profile="work", key="some-key-1234")
    for name in ("work", "default", "kleinod-1x2Y3z4W5v6U7t8S9r0Q1p2O"):
        with pytest.raises(InputError):
            ask(engine, "save_server", name=name, **at)
    with pytest.raises(InputError, match="8 to 256"):
        ask(engine, "save_server", name="desk", address="http://127.0.0.1:10", key="")
    assert ask(engine, "clear_server", name="x")[0]["address"] == "http://127.0.0.1:9/kleinod/api"
    engine.accounts.servers.own_port = 9
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(InputError, match="this very ComfyUI"):
            ask(engine, "save_server", **at | {"address": f"http://{host}:9"}, name="me")
    ask(engine, "save_server", **at | {"address": "http://192.0.2.7:9"}, plain=True, name="far")
    engine.accounts.servers.file.write_text("[1]")
    with pytest.raises(InputError, match=r"servers\.json"):
        engine.accounts.servers.find("desk")
