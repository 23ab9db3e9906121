"""Who is let in to the pack's own addresses, asked of a real aiohttp server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from kleinod_pure.base.doors import Doors, find_stranger
from kleinod_pure.base.errors import InputError

OURS = {"X-Kleinod": "1"}
OTHER_PLACES = [
    {"Host": "evil.example"},
    {"Host": "evil.example:8188", "Origin": "http://evil.example:8188"},
    {"Host": "192.168.0.7:8188"},
    {"Host": ""},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Referer": "https://pod.example/"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"X-Forwarded-For": "203.0.113.9"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"X-Forwarded-Proto": "https"},
    {"x-forwarded-host": "localhost"},
    {"Forwarded": "for=203.0.113.9"},
    {"X-Real-IP": "203.0.113.9"},
    {"Via": "1.1 proxy"},
    {"CF-Connecting-IP": "203.0.113.9"},
    {"True-Client-IP": "203.0.113.9"},
]


def serve(doors: Doors, work: Callable[[TestClient], Awaitable[None]]) -> None:
    """A server with one address to read, one to change, one bug and the door's own; `work` talks to it."""

    def change(body: dict[str, Any]) -> dict[str, Any]:
        if "bad" in body:
            raise InputError("bad must not be there.")
        return {"got": body}

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/private", doors.get(lambda request: {"read": 1}))
        app.router.add_get("/open", doors.get(lambda request: {"read": 1}, private=False))
        app.router.add_post("/change", doors.post(change))
        app.router.add_get("/bug", doors.get(lambda request: 1 / 0))
        app.router.add_post("/unlock", doors.unlock)
        async with TestClient(TestServer(app)) as client:
            await work(client)

    asyncio.run(run())


async def ask(client: TestClient, path: str, **headers: str) -> tuple[int, dict]:
    answer = await client.get(path, headers=headers)
    return answer.status, await answer.json()


async def post(client: TestClient, path: str, body: Any, **headers: str) -> tuple[int, dict]:
    answer = await client.post(path, json=body, headers=OURS | headers)
    return answer.status, await answer.json()


@pytest.mark.parametrize("headers", OTHER_PLACES, ids=str)
def test_no_other_place_is_let_in(headers: dict[str, str]) -> None:
    told: list[str] = []
    doors = Doors(tell=told.append)

    async def work(client: TestClient) -> None:
        for path in ("/private", "/open"):
            status, answer = await ask(client, path, **headers)
            assert status == 403 and answer["locked"] and doors.code not in answer["error"]
        assert (await post(client, "/change", {}, **headers))[0] == 403

    serve(doors, work)
    assert len(told) <= 1 and all(doors.code in text for text in told)


def test_this_machine_is_let_in() -> None:
    async def work(client: TestClient) -> None:
        port = client.port
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "127.0.0.2"):
            page = {"Host": host, "Sec-Fetch-Site": "same-origin", "Referer": f"http://{host}/"}
            assert await ask(client, "/private", **page) == (200, {"read": 1})
            page["Origin"] = f"http://{host}"
            assert await post(client, "/change", {"a": 1}, **page) == (200, {"got": {"a": 1}})

    serve(Doors(), work)


@pytest.mark.parametrize("peer", ["192.168.0.7", "10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "", None, "x"])
def test_a_peer_elsewhere_is_a_stranger(peer: str | None) -> None:
    assert "another computer" in find_stranger(peer, {"Host": "localhost:8188"})


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.9.9.9"])
def test_a_peer_here_is_none(peer: str) -> None:
    assert find_stranger(peer, {"Host": "localhost"}) == ""
    assert find_stranger(peer, {"Host": "localhost", "Origin": "http://localhost:80"}) == ""
    assert "HTTP/1.0" in find_stranger(peer, {"Host": "localhost"}, (1, 0))


def test_the_code_of_the_console_opens_from_anywhere() -> None:
    told: list[str] = []
    doors = Doors(tell=told.append)
    away = {"Host": "pod.example", "X-Forwarded-For": "203.0.113.9"}

    async def work(client: TestClient) -> None:
        for wrong in ({"code": "no"}, {"code": ""}, {"code": 7}, {}, [], {"code": doors.cookie}):
            assert (await post(client, "/unlock", wrong, **away))[0] == 403
        assert (await client.post("/unlock", json={"code": doors.code})).status == 403  # another page's form
        assert (await ask(client, "/private", **away))[0] == 403
        answer = await client.post("/unlock", json={"code": f" {doors.code.lower()} "}, headers=OURS | away)
        assert answer.status == 200
        crumb = answer.cookies[doors.cookie]
        assert crumb["httponly"] and crumb["samesite"] == "Strict" and doors.code not in crumb.value
        client.session.cookie_jar.clear()
        here = away | {"Cookie": f"{doors.cookie}={crumb.value}"}
        assert await ask(client, "/private", **here) == (200, {"read": 1})
        assert (await post(client, "/change", {}, **here))[0] == 200
        assert (await ask(client, "/private", **here, **{"Sec-Fetch-Site": "cross-site"}))[0] == 403
        assert await ask(client, "/private", **away, **{"X-Kleinod-Code": doors.code}) == (200, {"read": 1})
        assert (await ask(client, "/private", **away, **{"X-Kleinod-Code": Doors().code}))[0] == 403

    serve(doors, work)
    assert len(told) == 1 and doors.code in told[0]


def test_among_several_users_only_the_owner_manages() -> None:
    doors = Doors(multi_user=True, tell=lambda text: None)

    async def work(client: TestClient) -> None:
        assert (await ask(client, "/private"))[0] == 403
        assert (await post(client, "/change", {}))[0] == 403
        assert (await ask(client, "/open"))[0] == 200
        assert (await ask(client, "/private", **{"X-Kleinod-Code": doors.code}))[0] == 200

    serve(doors, work)


def test_where_every_page_is_allowed_nothing_private_changes() -> None:
    doors = Doors(cors="*", tell=lambda text: None)

    async def work(client: TestClient) -> None:
        status, answer = await post(client, "/change", {})
        assert status == 403 and "--enable-cors-header" in answer["error"]
        assert (await ask(client, "/private"))[0] == 200
        assert (await ask(client, "/private", Origin="https://any.example"))[0] == 403

    serve(doors, work)


def test_everyone_may_be_asked_for_the_code() -> None:
    doors = Doors(always=True, tell=lambda text: None)

    async def work(client: TestClient) -> None:
        assert (await ask(client, "/open"))[0] == 403
        assert (await ask(client, "/open", **{"X-Kleinod-Code": doors.code}))[0] == 200

    serve(doors, work)


def test_a_change_needs_our_page_and_a_small_json_object() -> None:
    async def work(client: TestClient) -> None:
        plain = {"Content-Type": "text/plain"} | OURS
        form = {"Content-Type": "application/x-www-form-urlencoded"} | OURS
        for headers in (plain, form, {"Content-Type": "application/json"}):
            assert (await client.post("/change", data="{}", headers=headers)).status == 403
        as_json = {"Content-Type": "application/json"} | OURS
        for data in ("[]", "1", "{", '"x"', "[" * 100_000, json.dumps({"a": "x" * 5000}), b"\xff"):
            answer = await client.post("/change", data=data, headers=as_json)
            assert answer.status == 400 and (await answer.json())["error"].startswith("The request is"), data
        assert (await client.post("/change", data="", headers=as_json)).status == 200
        assert await post(client, "/change", {"bad": 1}) == (400, {"error": "bad must not be there."})

    serve(Doors(), work)


def test_a_bug_is_not_a_sentence() -> None:
    async def work(client: TestClient) -> None:
        assert (await client.get("/bug")).status == 500

    serve(Doors(), work)


def test_codes_are_new_each_time_and_long() -> None:
    codes = {Doors().code for _ in range(50)}
    assert len(codes) == 50 and all(len(code) == 19 for code in codes)
