"""What is accepted is delivered or reported failed: kills, jumping clocks, full disks, clients that go."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from kleinod_pure.service import background, errands
from kleinod_pure.service.book import FILE
from kleinod_pure.service.clock import Clock
from kleinod_pure.service.dialects.runware_channel import Channels
from kleinod_pure.service.settings import ApiSettings
from kleinod_pure.service.web_adapter import WebAdapter

from tests.core.api_stage import Painter, Stage, make_task, run_service
from tests.core.test_api_network import run_outside, until

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20

# One process that has everything loaded begets a server for each moment, and kills it there.
_KILLER = """
import asyncio, os, random, signal, sys, time, types
from pathlib import Path
root, folder, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
for name, place in (("kleinod_pure", root / "nodes"), ("tests", root / "tests")):
    package = types.ModuleType(name); package.__path__ = [str(place)]; sys.modules[name] = package
from tests.core.api_stage import Painter, run_service, make_task
class Slow(Painter):
    async def watch(self, ticket, progress):
        await asyncio.sleep(0.01)
        return await super().watch(ticket, progress)
async def main(count):
    async with run_service(folder, painter=Slow()) as stage:
        for number in range(count):
            task = make_task(deliveryMethod="async", numberResults=2)
            status, told = await stage.ask("POST", "/runware/v1", [task])
            assert status == 200, told
            os.write(1, (told["data"][0]["taskUUID"] + "\\n").encode())
            await asyncio.sleep(0.005)
        while sum(stage.service.book.count()[s] for s in ("queued", "running")):
            await asyncio.sleep(0.01)
def start(count):
    child = os.fork()
    if child == 0:
        asyncio.run(main(count))
        os._exit(0)
    return child
dice = random.Random(7)
for moment in range(kills):
    child = start(1000)
    time.sleep(0.03 + dice.random() * 0.2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
child = start(3)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="begets by fork")
def test_killed_at_twenty_moments_everything_accepted_is_delivered_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLER, str(ROOT), str(tmp_path / "home"), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    accepted = done.stdout.split()
    assert len(accepted) > 3 and all(len(task) == 36 for task in accepted)

    async def look() -> None:
        async with run_service(tmp_path / "home") as stage:
            book = stage.service.book
            states: dict[str, int] = book.count()
            assert states["queued"] == states["running"] == 0
            for task in accepted:
                rows = book.read("select id from jobs where task = ?", (task,))
                pictures = book.pictures(rows[0]["id"])
                assert len(pictures) == 2
                for picture in pictures:
                    assert picture.state == "done" or (picture.state == "failed" and picture.error)
                    assert picture.state == "failed" or stage.service.result_bytes(picture) is not None

    asyncio.run(look())


@pytest.mark.parametrize("jump", [-86400 * 400, 86400 * 400])
def test_a_clock_that_jumps_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    """Set back or ahead while it runs: links, results and webhooks that wait keep their times."""
    monkeypatch.setattr(errands, "PAUSES", (0.05, 0.05))

    async def run() -> None:
        async with run_outside() as outside, run_service(tmp_path, reachable=(outside.place,)) as stage:
            outside.refuse = 1
            _, told = await stage.run(ttl=60, webhookURL=f"http://{outside.place}/hook")
            link = told["data"][0]["imageURL"]
            real = time.time()
            monkeypatch.setattr("time.time", lambda: real + jump)
            stage.service.tidy()
            assert (await stage.fetch(link)).size == (256, 192)
            await until(lambda: outside.posted)
            status, told = await stage.run()
            assert status == 200 and (await stage.fetch(told["data"][0]["imageURL"])).size == (256, 192)
        # The next start has the clock as it is now; what was to be sent then is sent now.
        async with run_service(tmp_path, clock=Clock(lambda: real + jump)) as stage:
            assert stage.service.book.read("select count(*) from pictures where next_try > 0")[0][0] == 0

    asyncio.run(asyncio.wait_for(run(), 30))


def test_the_clock_is_the_walls_at_the_start_and_then_the_steady_one() -> None:
    wall, steady = [1000.0], [5.0]
    clock = Clock(lambda: wall[0], lambda: steady[0])
    wall[0], steady[0] = 9.0, 7.5
    assert clock() == 1002.5


def test_a_full_disk_repeats_no_webhook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "WRITE_PAUSE", 0.02)

    async def run() -> None:
        async with run_outside() as outside, run_service(tmp_path, reachable=(outside.place,)) as stage:
            book = stage.service.book
            hook = f"http://{outside.place}/hook"
            book.read("create trigger full before update of errand on pictures when new.errand = '' begin "
                      "select raise(abort, 'disk full'); end")  # fmt: skip
            await stage.ask("POST", "/bfl/v1/flux-2-klein-4b", {"prompt": "a fox", "webhook_url": hook})
            await until(lambda: outside.posted)
            await asyncio.sleep(0.3)
            assert len(outside.posted) == 1
            book.read("drop trigger full")
            await until(lambda: not book.read("select 1 from pictures where errand != ''"))
            assert len(outside.posted) == 1

    asyncio.run(asyncio.wait_for(run(), 30))


def test_an_end_in_the_middle_of_a_webhook_repeats_none(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_outside() as outside:
            outside.pause = 0.3
            async with run_service(tmp_path, reachable=(outside.place,)) as stage:
                await stage.run(webhookURL=f"http://{outside.place}/hook")
                await until(lambda: outside.posted)
            async with run_service(tmp_path, reachable=(outside.place,)) as stage:
                assert stage.service.book.next_errand() is None
            assert len(outside.posted) == 1

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_webhook_that_is_sent_again_after_a_death_has_the_id_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken, and the process died before that was written down."""

    async def run() -> None:
        async with run_outside() as outside:
            async with run_service(tmp_path, reachable=(outside.place,)) as stage:
                stage.service.book.read(
                    "create trigger dead before update of errand on pictures when new.errand = '' begin "
                    "select raise(abort, 'dead'); end"
                )
                _, told = await stage.run(webhookURL=f"http://{outside.place}/hook", numberResults=2)
                await until(lambda: len(outside.posted) == 2)
                monkeypatch.setattr(errands, "PARTING_SECONDS", 0.01)
            base = sqlite3.connect(tmp_path / FILE)
            base.execute("drop trigger dead")
            base.close()
            async with run_service(tmp_path, reachable=(outside.place,)) as stage:
                await until(lambda: stage.service.book.next_errand() is None)
            ids = [headers["webhook-id"] for _, headers in outside.posted]
            assert sorted(ids) == sorted(2 * [item["imageUUID"] for item in told["data"]])

    asyncio.run(asyncio.wait_for(run(), 30))


@asynccontextmanager
async def serve(stage: Stage) -> AsyncIterator[int]:
    """The port of a web server before the service."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", WebAdapter(Channels(stage.service)).handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def send_raw(port: int, key: str, body: bytes, cut: int | None = None) -> asyncio.StreamWriter:
    """A request whose connection breaks off after `cut` bytes of its body, or stays open."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST /kleinod/api/runware/v1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    writer.write(body[:cut])
    await writer.drain()
    if cut is not None:
        writer.transport.abort()
    return writer


def test_an_upload_that_is_cut_is_no_job_and_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage, serve(stage) as port:
            picture = "A" * 400_000
            body = json.dumps([make_task(inputs={"referenceImages": [picture]})]).encode()
            for cut in (0, 1, 1000, len(body) - 1):
                await send_raw(port, stage.key, body, cut)
            await asyncio.sleep(0.1)  # the server hears of them, and that they are gone
            await until(lambda: list((tmp_path / "inputs").iterdir()) == [])
            async with ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/kleinod/api/health") as answer:
                    assert answer.status == 200
            assert sum(stage.service.book.count().values()) == 0 and stage.painter.graphs == []
            assert list((tmp_path / "inputs").iterdir()) == []

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_client_that_goes_while_it_waits_finds_its_picture_later(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage, serve(stage) as port:
            stage.painter.hold = asyncio.Event()
            task = make_task(numberResults=2)
            writer = await send_raw(port, stage.key, json.dumps([task]).encode())
            await until(lambda: len(stage.painter.graphs) == 2)
            writer.transport.abort()
            stage.painter.hold.set()
            await until(lambda: stage.service.book.count()["done"] == 2)
            poll = [{"taskType": "getResponse", "taskUUID": task["taskUUID"]}]
            _, told = await stage.ask("POST", "/runware/v1", poll)
            assert len(told["data"]) == 2 and "errors" not in told
            _, told = await stage.ask("POST", "/runware/v1", [task])
            assert len(told["data"]) == 2 and len(stage.painter.graphs) == 2, (
                "asked again, it is the same job"
            )

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_server_that_stops_tells_who_waits_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    async def run() -> None:
        painter = Painter()
        painter.hold = asyncio.Event()
        task = make_task()
        async with run_service(tmp_path, painter=painter) as stage:
            key = stage.key
            waiting = asyncio.create_task(stage.ask("POST", "/runware/v1", [task]))
            await until(lambda: painter.graphs)
        status, told = await waiting
        assert status == 503 and told["errors"][0]["code"] == "serviceUnavailable"
        async with run_service(tmp_path) as stage:
            status, told = await stage.ask("POST", "/runware/v1", [task], key=key)
            assert status == 200 and len(told["data"]) == 1

    asyncio.run(asyncio.wait_for(run(), 30))


def test_other_settings_disturb_nobody(tmp_path: Path) -> None:
    """The panel saves while pictures are drawn: they go on, and the next answer has the new price."""

    async def run() -> None:
        async with run_service(tmp_path) as stage:
            stage.painter.hold = asyncio.Event()
            waiting = asyncio.create_task(stage.run(includeCost=True))
            await until(lambda: stage.painter.graphs)
            values: dict[str, Any] = {**vars(stage.service.settings), "picture_usd": 0.25}
            stage.service.apply(ApiSettings(**values))
            stage.painter.hold.set()
            _, told = await waiting
            assert told["data"][0]["cost"] == 0.25 and len(stage.painter.graphs) == 1

    asyncio.run(asyncio.wait_for(run(), 30))
