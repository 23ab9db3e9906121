"""Paid jobs in the real ComfyUI: keys that leak nowhere, interrupts, kill -9, and what the routes let
through.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.emulator import Emulator
from tests.emulator.book import HELD
from tools.launch.client import WorkflowError, WorkflowInterrupted
from tools.launch.environment import Environment
from tools.launch.server import Server

pytestmark = pytest.mark.server

CANARY = "canary-8d1e55f0c3-do-not-leak"
PASTED = "pasted-2b7790aa41-do-not-leak"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(0.3, keys={CANARY, PASTED}) as running:
        yield running


@pytest.fixture(scope="module")
def server(emulator: Emulator, comfy_environment: Environment, tmp_path_factory) -> Iterator[Server]:
    variables = {
        "KLEINOD_RUNWARE_URL": emulator.url,
        "KLEINOD_BFL_URL": emulator.url,
        "RUNWARE_API_KEY": CANARY,
        "BFL_API_KEY": "",
    }
    base = tmp_path_factory.mktemp("remote")
    with Server(
        comfy_environment, base=base, log=base / "server.log", device="cpu", variables=variables
    ) as running:
        running.start()
        yield running


@pytest.fixture(autouse=True)
def calm(emulator: Emulator) -> None:
    emulator.faults.clear()
    emulator.book.seconds_per_job = 0.3


def runware(prompt: str, **more) -> dict:
    inputs = {
        "positive_prompt": prompt,
        "negative_prompt": "",
        "width": 256,
        "height": 192,
        "steps": 28,
        "cfg_scale": 3.5,
        "seed": 3,
        "number_results": 1,
    }
    return {"class_type": "KleinodRunware", "inputs": inputs | more}


def save(source: str, prefix: str) -> dict:
    return {"class_type": "SaveImage", "inputs": {"images": [source, 0], "filename_prefix": prefix}}


def call(server: Server, path: str, method: str = "GET", body: object = None, headers: dict | None = None):
    """(status, parsed answer)"""
    data = None if body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/json", "X-Kleinod": "1"} if headers is None else headers
    request = urllib.request.Request(server.url + path, data, given, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        text = error.read()
        return error.code, json.loads(text) if text[:1] in (b"{", b"[") else None


def test_a_picture_through_the_api(server, emulator) -> None:
    before = emulator.accepted
    result = server.client.run({"1": runware("a fox in the server"), "2": save("1", "api")})
    (image,) = result.images()
    assert server.client.fetch_image(image).startswith(b"\x89PNG")
    assert emulator.accepted == before + 1


def test_a_paid_edit_comes_back_with_the_rest_as_it_was(server, emulator) -> None:
    """As in the blueprint Edit with Runware; the emulator changes everything."""
    reading = {"size": "auto", "megapixels": 1.0, "match_image": 1, "background": "white"}
    references = {"images.image_1": ["1", 0], "mask_use": "hide the rest", **reading}
    mask = {"destination": ["4", 0], "source": ["5", 0], "x": 64, "y": 48, "operation": "add"}
    keeping = {"colour_match": 1.0, "sensitivity": 1.0, "grow": 6, "feather": 6, "place": "as it is"}
    graph = {
        "1": runware("a picture to edit", seed=5),
        "2": {"class_type": "KleinodReferences", "inputs": references},
        "3": runware("image 1 at night", width=["2", 1], height=["2", 2], references=["2", 0]),
        "4": {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 256, "height": 192}},
        "5": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 80, "height": 60}},
        "6": {"class_type": "MaskComposite", "inputs": mask},
        "7": {
            "class_type": "KleinodKeep",
            "inputs": {"original": ["1", 0], "edited": ["3", 0], "mask": ["6", 0], **keeping},
        },
        "8": save("1", "original"),
        "9": save("3", "edited"),
        "10": save("7", "kept"),
    }
    outputs = server.client.run(graph).outputs
    original, edited, kept = (
        np.asarray(Image.open(io.BytesIO(server.client.fetch_image(outputs[number]["images"][0]))))
        for number in ("8", "9", "10")
    )
    rest = np.ones(original.shape[:2], bool)
    rest[48:108, 64:144] = False
    assert np.array_equal(kept[rest], original[rest])
    assert not np.array_equal(edited[rest], original[rest])
    assert not np.array_equal(kept[~rest], original[~rest])


def test_two_remote_nodes_run_side_by_side(server, emulator) -> None:
    """Neither job ends before both were accepted."""
    emulator.book.seconds_per_job, before = HELD, emulator.accepted

    def release() -> None:
        while emulator.accepted < before + 2:
            time.sleep(0.01)
        emulator.book.finish()

    threading.Thread(target=release, daemon=True).start()
    graph = {"1": runware("left"), "2": save("1", "l"), "3": runware("right"), "4": save("3", "r")}
    assert len(server.client.run(graph).images()) == 2


def test_an_interrupt_is_felt_at_once_and_the_job_is_free_afterwards(server, emulator) -> None:
    """At once: before the job gets any further, as it would not end by itself."""
    emulator.book.seconds_per_job, before = HELD, emulator.accepted

    def cancel() -> None:
        while emulator.accepted == before:
            time.sleep(0.01)
        server.client.interrupt()

    threading.Thread(target=cancel, daemon=True).start()
    graph = {"1": runware("interrupted"), "2": save("1", "i")}
    with pytest.raises(WorkflowInterrupted):
        server.client.run(graph)
    emulator.book.finish()
    assert len(server.client.run(graph).images()) == 1
    assert emulator.accepted == before + 1


def test_the_empty_account_is_a_sentence(server, emulator) -> None:
    emulator.faults.order("refuse_402")
    with pytest.raises(WorkflowError) as caught:
        server.client.run({"1": runware("no money"), "2": save("1", "n")})
    assert "Runware says the balance is empty. Nothing was billed for this job." in str(caught.value)


def test_routes_store_test_and_clear_a_key_without_showing_it(server) -> None:
    status, known = call(server, "/kleinod/keys")
    assert status == 200 and known["runware"]["default"]["source"] == "environment"
    assert not known["bfl"]["default"]["set"]
    status, known = call(server, "/kleinod/keys", "POST", {"service": "bfl", "key": PASTED})
    assert status == 200 and known["bfl"]["default"] == {"set": True, "source": "file", "hint": "...leak"}
    status, told = call(server, "/kleinod/keys/test", "POST", {"service": "bfl"})
    assert status == 200 and told["ok"] and told["balance_usd"] > 0 and "emulator" in told["message"]
    status, told = call(
        server, "/kleinod/keys", "POST", {"service": "bfl", "profile": "wrong", "key": "not-a-known-key"}
    )
    assert not call(server, "/kleinod/keys/test", "POST", {"service": "bfl", "profile": "wrong"})[1]["ok"]
    assert call(server, "/kleinod/keys", "DELETE", {"service": "bfl", "profile": "wrong"})[0] == 200
    status, jobs = call(server, "/kleinod/jobs")
    assert status == 200 and jobs["spent_today_usd"] > 0 and len(jobs["jobs"]) >= 4
    assert all(choice.count("-") >= 4 for choice in call(server, "/kleinod/jobs/choices")[1])
    for answer in (known, told, jobs):
        assert PASTED not in json.dumps(answer) and CANARY not in json.dumps(answer)


@pytest.mark.parametrize(
    ("what", "headers"),
    [
        ("no header of ours", {"Content-Type": "application/json"}),
        ("a form", {"Content-Type": "application/x-www-form-urlencoded", "X-Kleinod": "1"}),
        ("text", {"Content-Type": "text/plain", "X-Kleinod": "1"}),
        (
            "another site",
            {"Content-Type": "application/json", "X-Kleinod": "1", "Origin": "https://evil.example"},
        ),
    ],
)
def test_routes_let_no_other_page_in(what, headers, server) -> None:
    for path, method in (
        ("/kleinod/keys", "POST"),
        ("/kleinod/keys", "DELETE"),
        ("/kleinod/limits", "POST"),
        ("/kleinod/keys/test", "POST"),
    ):
        status, _ = call(server, path, method, {"service": "bfl", "key": "evil-key-123456"}, headers)
        assert status == 403, what
    assert call(server, "/kleinod/keys")[1]["bfl"]["default"]["hint"] == "...leak"


def test_other_names_and_proxies_are_turned_away(server) -> None:
    ours = {"Content-Type": "application/json", "X-Kleinod": "1"}
    for elsewhere in (
        {"Host": "evil.example"}, {"X-Forwarded-For": "203.0.113.9"}, {"Forwarded": "for=203.0.113.9"},
        {"X-Real-IP": "127.0.0.1"}, {"Sec-Fetch-Site": "same-site"},
    ):  # fmt: skip
        for method, path in (
            ("GET", "/kleinod/keys"), ("POST", "/kleinod/keys"), ("POST", "/kleinod/keys/test"),
            ("POST", "/kleinod/limits"), ("GET", "/kleinod/jobs"), ("GET", "/kleinod/loras/info?file=x"),
            ("POST", "/kleinod/runware/copy"),
        ):  # fmt: skip
            body = None if method == "GET" else {"service": "bfl", "key": "evil-key-123456"}
            assert call(server, path, method, body, ours | elsewhere)[0] == 403, (method, path, elsewhere)
    log = Path(server.log).read_text("utf-8", "replace")
    (code,) = set(re.findall(r"enter (\S{4}-\S{4}-\S{4}-\S{4}) under", log))
    assert code.encode() not in server.client.get("/internal/logs"), "ComfyUI hands its log to everyone"
    away = ours | {"X-Forwarded-For": "203.0.113.9", "X-Kleinod-Code": code}
    assert call(server, "/kleinod/keys", headers=away)[0] == 200


def test_a_key_typed_as_a_profile_is_refused_before_it_is_anywhere(server) -> None:
    options = {"profile": CANARY, "price_check": "off", "output_type": "URL"}
    graph = {
        "1": runware("with a key", options=["3", 0]),
        "2": save("1", "x"),
        "3": {"class_type": "KleinodRunwareOptions", "inputs": options},
    }
    with pytest.raises(WorkflowError, match="looks like an API key") as caught:
        server.client.run(graph)
    assert CANARY not in str(caught.value)
    assert call(server, "/kleinod/profiles/check", "POST", {"profile": PASTED})[1] == {"is_key": True}


def test_routes_refuse_nonsense(server) -> None:
    for body in (
        {"service": "x", "key": "12345678"},
        {"service": "bfl", "key": "a b"},
        {"service": "bfl", "key": "x" * 9000},
        {"service": "bfl", "profile": "../../etc", "key": "12345678"},
        [],
        "x",
    ):
        assert call(server, "/kleinod/keys", "POST", body)[0] == 400
    assert call(server, "/kleinod/limits", "POST", {"day_usd": -1})[0] == 400


def test_recover_from_the_list(server, emulator) -> None:
    before = emulator.accepted
    choice = call(server, "/kleinod/jobs/choices")[1][0]
    graph = {"1": {"class_type": "KleinodRecoverJob", "inputs": {"job": choice}}, "2": save("1", "again")}
    assert len(server.client.run(graph).images()) == 1
    assert emulator.accepted == before


def test_recover_at_once_into_the_output_folder(server, emulator) -> None:
    """The panel's button: no graph, no queue, also for a job that no node ever got."""
    before = emulator.accepted
    job = next(job for job in call(server, "/kleinod/jobs")[1]["jobs"] if job["state"] == "saved")
    status, told = call(server, f"/kleinod/jobs/{job['id']}/recover", "POST", {})
    assert status == 200 and len(told["files"]) == len(job["pictures"])
    for file in told["files"]:
        kept = Path(server.base) / "output" / file["subfolder"] / file["filename"]
        assert kept.read_bytes().startswith(b"\x89PNG")
    assert emulator.accepted == before
    plain = {"Content-Type": "application/json"}
    assert call(server, f"/kleinod/jobs/{job['id']}/recover", "POST", {}, plain)[0] == 403
    unknown = "00000000-0000-4000-8000-000000000000"
    status, told = call(server, f"/kleinod/jobs/{unknown}/recover", "POST", {})
    assert status == 400 and "has no job" in told["error"]


def test_another_seed_after_an_interrupt_pays_once(server, emulator) -> None:
    """What the page does after Run, Interrupt, Run with its seed on randomize."""
    emulator.book.seconds_per_job, before = HELD, emulator.accepted

    def cancel() -> None:
        while emulator.accepted == before:
            time.sleep(0.01)
        server.client.interrupt()

    threading.Thread(target=cancel, daemon=True).start()
    with pytest.raises(WorkflowInterrupted):
        server.client.run({"1": runware("twice", seed=11), "2": save("1", "t")})
    emulator.book.finish()
    assert len(server.client.run({"1": runware("twice", seed=12), "2": save("1", "t")}).images()) == 1
    assert emulator.accepted == before + 1


def test_killed_in_the_middle_of_a_job(server, emulator) -> None:
    """SIGKILL while the job runs; after the restart the same graph is free."""
    emulator.book.seconds_per_job, before = HELD, emulator.accepted
    graph = {"1": runware("killed", number_results=2), "2": save("1", "k")}
    server.client.queue(graph)
    while emulator.accepted == before:
        time.sleep(0.01)
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    emulator.book.finish()
    server.process = None
    server.log = server.log.with_name("server-2.log")
    server.start()
    assert len(server.client.run(graph).images()) == 2
    assert emulator.accepted == before + 1


def test_no_key_in_any_byte_the_server_wrote_or_tells(server, emulator) -> None:
    """Runs last: searches everything the tests above left behind, and an error report made on purpose."""
    emulator.faults.order("refuse_401")
    with pytest.raises(WorkflowError):
        server.client.run({"1": runware("refused"), "2": save("1", "x")})
    told = b"".join(
        server.client.get(path)
        for path in (
            "/history",
            "/queue",
            "/settings",
            "/object_info/KleinodRunware",
            "/kleinod/keys",
            "/kleinod/jobs",
            "/userdata?dir=.&recurse=true&split=false&full_info=true",
            "/system_stats",
            "/internal/logs",
        )
    )
    assert b"refused" in told
    base = Path(server.base)
    files = [file for file in base.rglob("*") if file.is_file() and not file.is_symlink()]
    names = {file.suffix for file in files}
    assert {".png", ".log", ".sqlite", ".json"} <= names
    for key in (CANARY.encode(), PASTED.encode()):
        assert key not in told
        holders = {str(file.relative_to(base)) for file in files if key in file.read_bytes()}
        assert holders <= {"user/__kleinod/keys.json"}
    status, _ = call(server, "/userdata/..%2F__kleinod%2Fkeys.json")
    assert status in (400, 403, 404)
    for seen in emulator.seen:
        left = seen.replace(f"Bearer {CANARY}".encode(), b"").replace(f"x-key: {PASTED}".encode(), b"")
        assert CANARY.encode() not in left and PASTED.encode() not in left
