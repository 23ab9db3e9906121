"""The service behind an ASGI server: the same answers, strangers kept out, one WebSocket, more numbers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.asgi import AsgiAdapter
from tests.core.api_stage import make_task, run_service


def make_scope(kind: str, path: str, method: str = "POST", peer: str = "127.0.0.1", **headers: str) -> Any:
    given = {"host": "127.0.0.1:8188", **{name.replace("_", "-"): value for name, value in headers.items()}}
    path, _, query = path.partition("?")
    return {
        "type": kind, "method": method, "path": path, "query_string": query.encode(), "client": (peer, 5),
        "scheme": "ws" if kind == "websocket" else "http",
        "headers": [(name.encode(), value.encode()) for name, value in headers_of(given).items()],
    }  # fmt: skip


def headers_of(given: Mapping[str, str]) -> Mapping[str, str]:
    return {name.lower(): value for name, value in given.items()}


async def ask(adapter: AsgiAdapter, scope: Any, *parts: bytes) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body)"""
    waiting = list(parts) or [b""]
    told: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        part = waiting.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(waiting)}

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    await adapter(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in told[0]["headers"]}
    return told[0]["status"], headers, b"".join(message.get("body", b"") for message in told[1:])


def test_a_request_in_parts_gives_a_picture_under_the_address_that_was_asked(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            adapter = AsgiAdapter(stage.service)
            body = json.dumps([make_task(outputFormat="PNG", seed=9)]).encode()
            bearer = {"authorization": f"Bearer {stage.key}"}
            scope = make_scope("http", "/kleinod/api//runware/v1", **bearer)
            status, headers, said = await ask(adapter, scope, body[:40], body[40:])
            item = json.loads(said)["data"][0]
            assert status == 200 and item["seed"] == 9
            assert headers["x-content-type-options"] == "nosniff"
            address = item["imageURL"]
            assert address.startswith("http://127.0.0.1:8188/kleinod/api/results/")
            scope = make_scope("http", address.removeprefix("http://127.0.0.1:8188"), "GET")
            status, headers, picture = await ask(adapter, scope)
            assert (status, headers["content-type"], picture[:4]) == (200, "image/png", b"\x89PNG")
            assert headers["content-length"] == str(len(picture))
            head = await ask(adapter, scope | {"method": "HEAD"})
            assert (head[0], head[1]["content-length"], head[2]) == (200, str(len(picture)), b"")

    asyncio.run(run())


def test_strangers_other_paths_and_large_bodies_are_turned_away(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            adapter = AsgiAdapter(stage.service)
            health = "/kleinod/api/health"
            assert (await ask(adapter, make_scope("http", health, "GET")))[0] == 200
            assert (await ask(adapter, make_scope("http", health, "GET", peer="10.0.0.9")))[0] == 403
            assert (await ask(adapter, make_scope("http", health, "GET", host="evil.example")))[0] == 403
            for path in ("/", "/health", "/kleinod/apis/health"):
                assert (await ask(adapter, make_scope("http", path, "GET")))[0] == 404
            large = make_scope("http", "/kleinod/api/runware/v1", content_length=str(17 << 20))
            assert (await ask(adapter, large))[0] == 413
            large = make_scope("http", "/kleinod/api/runware/v1")
            assert (await ask(adapter, large, *[bytes(6 << 20)] * 3))[0] == 413

    asyncio.run(run())


def test_metrics_have_the_workers_numbers_for_those_with_a_key(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            adapter = AsgiAdapter(stage.service, lambda: "kleinod_workers 2\n")
            scope = make_scope("http", "/kleinod/api/metrics", "GET")
            status, _, said = await ask(adapter, scope)
            assert status == 401 and b"kleinod_workers" not in said
            scope = make_scope("http", "/kleinod/api/metrics", "GET", x_key=stage.key)
            status, headers, said = await ask(adapter, scope)
            assert status == 200 and said.endswith(b"kleinod_workers 2\n") and b"kleinod_api_pictures" in said
            assert headers["content-length"] == str(len(said))

    asyncio.run(run())


def test_a_websocket_conversation(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            adapter = AsgiAdapter(stage.service)
            heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            path = "/kleinod/api/runware/v1"
            talk = asyncio.ensure_future(adapter(make_scope("websocket", path), heard.get, said.put))
            heard.put_nowait({"type": "websocket.connect"})
            assert (await said.get())["type"] == "websocket.accept"

            async def exchange(task: dict[str, Any]) -> dict[str, Any]:
                heard.put_nowait({"type": "websocket.receive", "text": json.dumps([task])})
                return json.loads((await said.get())["text"])

            told = await exchange({"taskType": "authentication", "apiKey": stage.key})
            assert told["data"][0]["connectionSessionUUID"]
            task = make_task(seed=4)
            told = await exchange(task)
            assert (told["data"][0]["taskUUID"], told["data"][0]["seed"]) == (task["taskUUID"], 4)
            heard.put_nowait({"type": "websocket.disconnect"})
            await asyncio.wait_for(talk, 5)
            refused = asyncio.ensure_future(
                adapter(make_scope("websocket", path, peer="10.0.0.9"), heard.get, said.put)
            )
            heard.put_nowait({"type": "websocket.connect"})
            assert (await said.get())["type"] == "websocket.close"
            await asyncio.wait_for(refused, 5)

    asyncio.run(run())


def test_a_wrong_key_ends_the_websocket(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            adapter = AsgiAdapter(stage.service)
            messages = [
                {"type": "websocket.connect"},
                {"type": "websocket.receive", "text": '[{"taskType": "authentication", "apiKey": "wrong"}]'},
            ]
            told: list[dict[str, Any]] = []

            async def receive() -> dict[str, Any]:
                return messages.pop(0)

            async def send(message: dict[str, Any]) -> None:
                told.append(message)

            await adapter(make_scope("websocket", "/kleinod/api/runware/v1"), receive, send)
            assert [message["type"] for message in told] == [
                "websocket.accept", "websocket.send", "websocket.close",
            ]  # fmt: skip
            assert json.loads(told[1]["text"])["errors"][0]["code"] == "invalidApiKey"

    asyncio.run(run())
