"""Jobs survive: idempotent by their id, run again after a kill, delivered once, in turn between keys."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from kleinod_pure.service import background
from kleinod_pure.service.dispatcher import Dispatcher
from kleinod_pure.service.executor import Cancelled, RunFailed, Unreachable

from tests.core.api_stage import Painter, make_task, run_service


def test_the_same_body_is_the_same_job_and_another_a_conflict(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            task = make_task()
            _, first = await stage.ask("POST", "/runware/v1", [task])
            _, again = await stage.ask("POST", "/runware/v1", [task])
            assert first["data"][0]["imageUUID"] == again["data"][0]["imageUUID"]
            assert first["data"][0]["seed"] == again["data"][0]["seed"] and len(stage.painter.graphs) == 1
            status, told = await stage.ask("POST", "/runware/v1", [task | {"steps": 9}])
            assert status == 400 and told["errors"][0]["code"] == "conflictTaskUUID"
            other = stage.service.keys.create("other")
            _, told = await stage.ask("POST", "/runware/v1", [task | {"steps": 9}], key=other)
            assert told["data"][0]["imageUUID"] != first["data"][0]["imageUUID"]
            poll = [{"taskType": "getResponse", "taskUUID": task["taskUUID"]}]
            _, told = await stage.ask("POST", "/runware/v1", poll, key=other)
            assert len(told["data"]) == 1, "a key sees its own jobs"
            body = {"prompt": "x"}
            ids = {
                (await stage.ask("POST", "/bfl/v1/flux-2-klein-4b", body, idempotency_key="a"))[1]["id"]
                for _ in range(2)
            }
            assert len(ids) == 1

    asyncio.run(run())


def test_one_array_of_good_and_bad_tasks_gives_both(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            good, bad = make_task(), make_task(steps=99)
            status, told = await stage.ask(
                "POST", "/runware/v1", [bad, good, {"taskType": "ping", "ping": True}]
            )
            assert status == 200
            assert told["errors"][0]["taskUUID"] == bad["taskUUID"]
            assert {item["taskType"] for item in told["data"]} == {"ping", "imageInference"}
            first = {"taskType": "authentication", "apiKey": stage.key}
            status, told = await stage.ask("POST", "/runware/v1", [first, good], key="")
            assert status == 200 and told["data"][0]["taskUUID"] == good["taskUUID"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("problem", "code", "words"),
    [
        (RunFailed("lora 'x' is gone.", told=True), "inferenceError", "lora 'x' is gone."),
        (RunFailed("C:/private/secret.py broke"), "inferenceError", "log says more"),
        (Cancelled(), "taskCancelled", "cancelled"),
        (OSError(28, "No space left on device"), "serviceUnavailable", "cannot store"),
        (ValueError("bug"), "inferenceError", "log says more"),
    ],
)
def test_a_failed_picture_leaves_the_others(
    tmp_path: Path, problem: Exception, code: str, words: str
) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            stage.painter.fails = [problem]
            status, told = await stage.run(numberResults=2)
            assert status == 200 and len(told["data"]) == 1
            assert told["errors"][0]["code"] == code and words in told["errors"][0]["message"]

    asyncio.run(run())


def test_a_machine_that_does_not_answer_is_waited_for(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            stage.painter.fails = [Unreachable("x"), Unreachable("x")]
            status, told = await stage.run()
            assert status == 200 and len(told["data"]) == 1

    asyncio.run(run())


def test_keys_take_turns(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            stage.painter.hold = asyncio.Event()
            small = stage.service.keys.create("small")
            big = make_task(deliveryMethod="async", numberResults=20)
            await stage.ask("POST", "/runware/v1", [big])
            tasks = [make_task(deliveryMethod="async", numberResults=2) for _ in range(2)]
            await stage.ask("POST", "/runware/v1", tasks, key=small)
            stage.painter.hold.set()
            book = stage.service.book
            while book.count()["done"] < 24:
                await asyncio.sleep(0.01)
            turn = [book.find_picture(ticket).key_id for ticket in stage.painter.order]
            assert max(place for place, key in enumerate(turn) if key == 2) <= 10

    asyncio.run(run())


def test_another_server_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path):
            with pytest.raises(ValueError, match="another ComfyUI"):
                async with run_service(tmp_path):
                    pass

    asyncio.run(run())


def test_results_stay_under_the_size_cap(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path, keep_bytes=1 << 20) as stage:
            for _ in range(3):
                await stage.run(width=1024, height=1024, outputFormat="PNG", outputType="base64Data")
            folder = tmp_path / "results"
            files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime)
            for file in files:  # as large as photographs are
                file.write_bytes(file.read_bytes() + bytes(600 << 10))
            stage.service.tidy()
            assert stage.service.store.size() <= 1 << 20 and files[-1].exists() and not files[0].exists()

    asyncio.run(run())


def test_a_full_disk_refuses_new_jobs_and_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "WRITE_PAUSE", 0.02)

    async def run() -> None:
        async with run_service(tmp_path) as stage:
            book = stage.service.book
            stage.painter.hold = asyncio.Event()
            await stage.run(deliveryMethod="async", numberResults=4, positivePrompt="x" * 9000)
            while len(stage.painter.graphs) < 2:
                await asyncio.sleep(0.01)
            pages = book.read("pragma page_count")[0][0]
            book.read(f"pragma max_page_count = {pages}")
            found = [await stage.run(deliveryMethod="async", positivePrompt="y" * 9000) for _ in range(4)]
            status, told = found[-1]
            assert status == 503 and told["errors"][0]["code"] == "serviceUnavailable"
            stage.painter.hold.set()
            await asyncio.sleep(0.1)
            book.read("pragma max_page_count = 1000000")
            status, told = await stage.run()
            assert status == 200
            while sum(book.count()[name] for name in ("queued", "running")):
                await asyncio.sleep(0.01)
            assert book.count()["done"] == 5 + sum(status == 200 for status, _ in found)
            assert book.count()["failed"] == 0

    asyncio.run(asyncio.wait_for(run(), 30))


def test_openapi_names_every_field_of_the_request(tmp_path: Path) -> None:
    async def run() -> Any:
        async with run_service(tmp_path) as stage:
            return await stage.ask("GET", "/openapi.json", key="")

    status, told = asyncio.run(run())
    body = told["paths"]["/runware/v1"]["post"]["requestBody"]
    task = body["content"]["application/json"]["schema"]["items"]
    wanted = set(
        "taskType taskUUID outputType outputFormat outputQuality webhookURL deliveryMethod uploadEndpoint "
        "ttl includeCost numberResults acceleration acceleratorOptions inputs model positivePrompt "
        "negativePrompt width height seed steps scheduler CFGScale lora advancedFeatures settings".split()
    )
    assert status == 200 and wanted <= set(task["properties"])
    assert json.dumps(told)


def test_nobody_waits_for_a_dispatcher_that_is_closed(tmp_path: Path) -> None:
    async def run() -> None:
        painter = Painter()
        painter.hold = asyncio.Event()
        async with run_service(tmp_path, painter=painter) as stage:
            await stage.run(deliveryMethod="async")
            while not painter.graphs:
                await asyncio.sleep(0.01)
        async with run_service(tmp_path) as stage:
            while stage.service.book.count()["done"] < 1:
                await asyncio.sleep(0.01)
            assert isinstance(stage.service.dispatcher, Dispatcher)

    asyncio.run(asyncio.wait_for(run(), 20))
