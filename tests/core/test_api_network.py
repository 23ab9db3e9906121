"""What goes out and what is fetched: uploads, webhooks, references; and where none of it may lead."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kleinod_pure.service import errands
from kleinod_pure.service.dialects.runware_channel import Channels
from kleinod_pure.service.fetching import Fetcher, NotReached
from kleinod_pure.service.messages import Refusal
from PIL import Image

from tests.core.api_stage import make_png, make_task, run_service

SEED = Path(__file__).with_name("runware_examples.json")


class Outside:
    """A web server of the test: what was put and posted there. refuse: how many requests get a 503 first.
    pause: seconds until it answers a post.
    """

    def __init__(self) -> None:
        self.put: list[tuple[str, bytes, str]] = []
        self.posted: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.refuse = 0
        self.pause = 0.0
        self.place = ""

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.refuse:
            self.refuse -= 1
            return web.Response(status=503)
        if request.method == "PUT":
            self.put.append((request.path_qs, body, request.content_type))
        elif request.method == "POST":
            self.posted.append((json.loads(body), {k.lower(): v for k, v in request.headers.items()}))
            await asyncio.sleep(self.pause)
        elif request.path == "/away":
            return web.Response(status=302, headers={"Location": request.query["to"]})
        elif request.path == "/big":
            return web.Response(body=bytes(21 << 20))
        elif request.path == "/text":
            return web.Response(text="no picture")
        else:
            return web.Response(body=make_png((160, 96)), content_type="image/png")
        return web.Response()


@asynccontextmanager
async def run_outside() -> AsyncIterator[Outside]:
    outside = Outside()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{tail:.*}", outside.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    outside.place = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield outside
    finally:
        await runner.cleanup()


async def until(condition: Any) -> None:
    async def look() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), 20)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setattr(errands, "UPLOAD_PAUSES", (0.01, 0.01))


def test_upload_and_one_webhook_a_picture_also_after_refusals(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_outside() as outside, run_service(tmp_path, reachable=(outside.place,)) as stage:
            outside.refuse = 2
            status, told = await stage.run(
                uploadEndpoint=f"http://{outside.place}/bucket/a.png?sign=1", outputFormat="PNG",
                webhookURL=f"http://{outside.place}/hook", numberResults=2, includeCost=True,
            )  # fmt: skip
            assert status == 200 and "errors" not in told
            assert [(path, kind) for path, _, kind in outside.put] == [
                ("/bucket/a.png?sign=1", "image/png")
            ] * 2
            for item in told["data"]:
                file = stage.service.book.find_picture(item["imageUUID"])
                assert stage.service.result_bytes(file) in [body for _, body, _ in outside.put]
            await until(lambda: len(outside.posted) == 2)
            uuids = {body["data"][0]["imageUUID"] for body, _ in outside.posted}
            assert uuids == {item["imageUUID"] for item in told["data"]}
            body, _ = outside.posted[0]
            assert body["data"][0]["taskUUID"] == told["data"][0]["taskUUID"] and "cost" in body["data"][0]
            ids = [(body["data"][0]["imageUUID"], headers["webhook-id"]) for body, headers in outside.posted]
            assert all(picture == told_id for picture, told_id in ids)
            await asyncio.sleep(0.1)
            assert len(outside.posted) == 2, "told once"

    asyncio.run(run())


def test_a_refused_upload_is_said_and_the_picture_kept(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_outside() as outside, run_service(tmp_path, reachable=(outside.place,)) as stage:
            outside.refuse = 99
            status, told = await stage.run(uploadEndpoint=f"http://{outside.place}/x")
            assert status == 200 and told["errors"][0]["code"] == "uploadFailed"
            assert (await stage.fetch(told["data"][0]["imageURL"])).size == (256, 192)

    asyncio.run(run())


def test_a_webhook_host_that_is_down_does_not_hold_anything_up(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path, reachable=("127.0.0.1:9",)) as stage:
            status, told = await stage.run(webhookURL="http://127.0.0.1:9/hook")
            assert status == 200 and told["data"]
            await until(lambda: stage.service.book.next_errand() is None)

    asyncio.run(run())


def test_bfls_webhook_is_signed(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_outside() as outside, run_service(tmp_path, reachable=(outside.place,)) as stage:
            body = {"prompt": "x", "webhook_url": f"http://{outside.place}/h", "webhook_secret": "hush"}
            status, told = await stage.ask("POST", "/bfl/v1/flux-2-klein-4b", body)
            assert (
                status == 200 and told["status"] == "Pending" and told["webhook_url"] == body["webhook_url"]
            )
            await until(lambda: outside.posted)
            message, headers = outside.posted[0]
            assert message["status"] == "Ready" and message["task_id"] == told["id"]
            seal = hmac.new(b"hush", json.dumps(message).encode(), hashlib.sha256).hexdigest()
            assert headers["x-bfl-signature"] == f"sha256={seal}" and headers["x-webhook-secret"] == "hush"

    asyncio.run(run())


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1/x.png", "http://localhost/x.png", "http://[::1]/x.png", "http://10.1.2.3/x.png",
        "http://192.168.0.1/x.png", "http://169.254.169.254/latest/meta-data", "http://0.0.0.0/x.png",
        "http://2130706433/x.png", "http://127.1/x.png", "http://0x7f.0.0.1/x.png", "http://[::ffff:127.0.0.1]/x",
        "http://100.64.0.1/x.png", "http://224.0.0.1/x", "http://user:word@example.com/x.png",
        "http://[64:ff9b::7f00:1]/x", "http://localhost./x.png",
    ],
)  # fmt: skip
def test_private_addresses_are_not_visited(address: str) -> None:
    with pytest.raises(Refusal):
        asyncio.run(Fetcher(seconds=5).fetch_picture(address, "inputs.referenceImages[0]"))
    with pytest.raises(NotReached):
        asyncio.run(Fetcher(seconds=5).send("POST", address, b"{}", {}))


def test_references_by_address_and_where_redirects_may_not_lead(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_outside() as outside, run_outside() as private:
            async with run_service(tmp_path, reachable=(outside.place,)) as stage:

                async def run_with(address: str) -> tuple[int, Any]:
                    return await stage.run(inputs={"referenceImages": [address]})

                status, _ = await run_with(f"http://{outside.place}/a.png")
                assert status == 200
                file = next(iter(stage.painter.pictures[0].values()))
                assert Image.open(io.BytesIO(file)).size == (160, 96)
                assert (await run_with(f"http://{outside.place}/away?to=/a.png"))[0] == 200
                for bad in (
                    f"http://{private.place}/a.png", f"http://{outside.place}/away?to=http://{private.place}/a",
                    f"http://{outside.place}/away?to=file:///etc/passwd", f"http://{outside.place}/big",
                    f"http://{outside.place}/text", f"http://{outside.place}/away?to=/away",
                ):  # fmt: skip
                    status, told = await run_with(bad)
                    assert status == 400 and told["errors"][0]["taskUUID"], (bad, told)
                assert stage.service.book.count()["done"] == 2

    asyncio.run(run())


def test_the_documents_four_examples_run_as_they_stand(tmp_path: Path) -> None:
    """Their references come from a host of the test in place of Runware's."""

    class Elsewhere(Fetcher):
        async def fetch_picture(self, address: str, name: str) -> bytes:
            assert address.startswith("https://assets.runware.ai/assets/inputs/")
            return make_png((200, 120))

    async def run() -> None:
        async with run_service(tmp_path) as stage:
            stage.service.fetcher = Elsewhere()
            for example in json.loads(SEED.read_text(encoding="utf-8")):
                status, told = await stage.ask("POST", "/runware/v1", [example["request"]])
                assert status == 200, told
                item, wanted = told["data"][0], example["response"]
                assert {name: item[name] for name in ("taskType", "taskUUID", "seed")} == {
                    name: wanted[name] for name in ("taskType", "taskUUID", "seed")
                }
                assert set(wanted) - {"cost"} == set(item)
                assert (await stage.fetch(item["imageURL"])).size == (
                    example["request"]["width"], example["request"]["height"],
                )  # fmt: skip
                assert stage.painter.graphs[-1]["sampler"]["inputs"]["guidance"] == 4.0

    asyncio.run(run())


def test_the_websocket_authenticates_pings_streams_and_resumes(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            heard: list[dict[str, Any]] = []

            async def send(text: str) -> None:
                heard.append(json.loads(text))

            channels = Channels(stage.service)
            stranger = channels.open("http://x", send)
            assert not await stranger.hear(json.dumps([make_task()]))
            assert heard.pop()["errors"][0]["code"] == "missingApiKey"
            assert not await stranger.hear(json.dumps([{"taskType": "authentication", "apiKey": "no"}]))
            assert heard.pop()["errors"][0]["taskType"] == "authentication"

            first = channels.open("http://x", send)
            hello = {"taskType": "authentication", "apiKey": stage.key}
            assert await first.hear(json.dumps([hello]))
            name = heard.pop()["data"][0]["connectionSessionUUID"]
            assert await first.hear(json.dumps([{"taskType": "ping", "ping": True}]))
            assert heard.pop() == {"data": [{"taskType": "ping", "pong": True}]}
            assert await first.hear("not json") and heard.pop()["errors"]
            stage.painter.hold = asyncio.Event()
            task = make_task(numberResults=2)
            assert await first.hear(json.dumps([task]))
            first.leave()
            stage.painter.hold.set()
            job = stage.service.book.find_job(1, task["taskUUID"])
            await stage.service.wait_for_all(job.id)
            await asyncio.sleep(0.05)
            assert heard == [], "nobody is there"
            second = channels.open("http://x", send)
            assert await second.hear(json.dumps([hello | {"connectionSessionUUID": name}]))
            assert heard.pop(0)["data"][0]["connectionSessionUUID"] == name
            assert [body["data"][0]["taskUUID"] for body in heard] == [task["taskUUID"]] * 2
            heard.clear()
            other = stage.service.keys.create("other")
            third = channels.open("http://x", send)
            assert await third.hear(json.dumps([{**hello, "apiKey": other, "connectionSessionUUID": name}]))
            assert heard.pop()["data"][0]["connectionSessionUUID"] != name, "a session is its key's alone"
            stage.service.keys.revoke("other")
            await third.hear(json.dumps([make_task()]))
            assert heard.pop()["errors"][0]["code"] == "invalidApiKey"

    asyncio.run(run())


def test_two_hundred_broken_frames(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            heard: list[str] = []

            async def send(text: str) -> None:
                heard.append(text)

            channel = Channels(stage.service).open("http://x", send)
            await channel.hear(json.dumps([{"taskType": "authentication", "apiKey": stage.key}]))
            good = json.dumps([make_task()])
            for number in range(200):
                cut = number * 7 % len(good)
                before = len(heard)
                assert await channel.hear(good[:cut] + chr(number * 31 % 0x300) + good[cut + 2 :])
                assert len(heard) > before or re.search("imageInference", good)

    asyncio.run(run())
