"""Every field of the three documents acts: field in, effect observed in the graph, the file or the answer."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kleinod_pure.base.acceleration import ACCELERATION_FIELDS
from kleinod_pure.base.schedulers import SCHEDULER_NAMES
from kleinod_pure.base.values import FACE_FIELDS
from kleinod_pure.service.clock import Clock
from PIL import Image

from tests.core.api_stage import BASE, NANO, make_png, make_task, run_service

PNG = base64.b64encode(make_png((96, 64))).decode()


def draw(tmp_path: Path, **fields: Any) -> tuple[dict[str, Any], dict[str, Any], Image.Image | None]:
    """(the graph, the first result, its picture) of one imageInference."""

    async def run() -> Any:
        async with run_service(tmp_path) as stage:
            status, told = await stage.run(**fields)
            assert status == 200, told
            item = told["data"][0]
            picture = await stage.fetch(item["imageURL"]) if "imageURL" in item else None
            return stage.painter.graphs[0], item, picture

    return asyncio.run(run())


# Field of the request, its value, (node, input), what the graph must hold.
TO_GRAPH: list[tuple[dict[str, Any], str, str, Any]] = [
    ({"positivePrompt": "a red fox"}, "prompt", "positive", "a red fox"),
    ({"negativePrompt": "blur"}, "prompt", "negative", "blur"),
    ({"width": 512}, "sampler", "width", 512),
    ({"height": 320}, "sampler", "height", 320),
    ({"steps": 11}, "sampler", "steps", 11),
    ({}, "sampler", "steps", 28),
    ({"CFGScale": 2.5}, "sampler", "guidance", 2.5),
    ({}, "sampler", "guidance", 3.5),
    ({"CFGScale": 2.5, "settings": {"trueCFGScale": 4}}, "sampler", "guidance", 4.0),
    ({"seed": 77}, "sampler", "seed", 77),
    ({"seed": 2**32 + 5}, "sampler", "seed", 5),
    ({"acceleration": "low"}, "sampler", "acceleration", "low"),
    ({}, "sampler", "acceleration", "high"),
    ({"model": "runware:400@4"}, "loader", "diffusion_model", "flux-2-klein-4b.safetensors"),
    ({"model": "runware:400@4"}, "sampler", "steps", 4),
    ({"model": "runware:400@4"}, "sampler", "guidance", 1.0),
    ({"model": "runware:400@5"}, "loader", "diffusion_model", "flux-2-klein-base-4b.safetensors"),
    ({"model": "runware:400@2"}, "loader", "diffusion_model", "flux-2-klein-9b.safetensors"),
    ({"model": "runware:400@3"}, "loader", "diffusion_model", "flux-2-klein-base-9b-fp8.safetensors"),
    ({"model": "runware:400@6"}, "loader", "diffusion_model", "flux-2-klein-9b-kv.safetensors"),
    ({"lora": [{"model": "style", "weight": -0.5}]}, "loras", "rows", "style.safetensors -0.5"),
    (
        {"lora": [{"model": "civitai:123@456", "transformer": "low"}, {"model": "style.safetensors"}]},
        "loras", "rows", "people/civitai-123@456.safetensors 1 low\nstyle.safetensors 1",
    ),
    *[({"scheduler": name}, "sampler", "scheduler", name) for name in SCHEDULER_NAMES],
    ({"scheduler": "EulerDiscreteScheduler"}, "sampler", "scheduler", "Euler DiscreteScheduler"),
]  # fmt: skip


OPTIONS = {
    "cacheStartStep": 2, "cacheEndStep": 9, "cacheStartStepPercentage": 10, "cacheEndStepPercentage": 80,
    "cacheMaxConsecutiveSteps": 2, "fbCache": True, "fbCacheThreshold": 0.1, "teaCache": True,
    "teaCacheDistance": 0.3, "dbCache": True, "dbCacheThreshold": 0.4, "dbCacheSkipInterval": 2,
}  # fmt: skip
FACES = {
    "CFGScale": 3.0, "confidence": 0.4, "maskBlur": 9, "maskPadding": 7, "negativePrompt": "old",
    "positivePrompt": "young", "steps": 6, "strength": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Callable[..., dict[str, Any]]:
    """The graph of a request's fields; all requests go to one service, at once."""
    asked = [fields for fields, *_ in TO_GRAPH]
    asked += [{"acceleratorOptions": {name: OPTIONS[name]}, "acceleration": "medium"} for name in OPTIONS]
    asked += [{"advancedFeatures": {"ultralytics": {name: FACES[name]}}} for name in FACES]

    async def run() -> list[dict[str, Any]]:
        async with run_service(tmp_path_factory.mktemp("api")) as stage:
            found = []
            for fields in asked:
                status, told = await stage.run(**fields)
                assert status == 200, told
                found.append(stage.painter.graphs[-1])
            return found

    graphs = asyncio.run(run())
    return lambda **fields: graphs[asked.index(fields)]


@pytest.mark.parametrize(("fields", "node", "name", "wanted"), TO_GRAPH)
def test_a_field_reaches_the_graph(drawn, fields, node: str, name: str, wanted) -> None:
    assert drawn(**fields)[node]["inputs"][name] == wanted


@pytest.mark.parametrize("option", OPTIONS)
def test_each_accelerator_option_reaches_the_graph(drawn, option: str) -> None:
    own = {row.api: row.name for row in ACCELERATION_FIELDS if row.api}
    graph = drawn(acceleratorOptions={option: OPTIONS[option]}, acceleration="medium")
    inputs = graph["acceleration"]["inputs"]
    assert inputs[own[option]] == OPTIONS[option]
    assert inputs["acceleration"] == "medium"
    assert graph["sampler"]["inputs"]["acceleration_settings"] == ["acceleration", 0]


def test_the_tables_name_every_option_and_face_setting() -> None:
    assert set(OPTIONS) == {row.api for row in ACCELERATION_FIELDS if row.api}
    assert set(FACES) == {row.api for row in FACE_FIELDS if row.api}


@pytest.mark.parametrize("name", FACES)
def test_each_face_setting_reaches_the_graph(drawn, name: str) -> None:
    own = {row.api: row.name for row in FACE_FIELDS if row.api}
    graph = drawn(advancedFeatures={"ultralytics": {name: FACES[name]}})
    assert graph["face settings"]["inputs"][own[name]] == FACES[name]
    assert graph["face settings"]["inputs"]["preset"] == "custom"
    assert graph["result"]["inputs"]["images"] == ["faces", 0]
    assert graph["faces"]["inputs"]["detector"] == "bbox/face_yolov8m.pt"


@pytest.mark.parametrize(
    ("fields", "form"),
    [({}, "JPEG"), ({"outputFormat": "PNG"}, "PNG"), ({"outputFormat": "WEBP"}, "WEBP")],
)
def test_output_format_is_the_files(tmp_path: Path, fields, form: str) -> None:
    _, item, picture = draw(tmp_path, **fields)
    assert picture is not None and picture.format == form and picture.size == (256, 192)
    assert item["imageURL"].rsplit(".", 1)[-1] == {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[form]
    assert not picture.info.get("prompt"), "the graph must not travel in the file"


def test_output_quality_changes_the_file(tmp_path: Path) -> None:
    low = draw(tmp_path / "a", outputQuality=20)[2]
    high = draw(tmp_path / "b", outputQuality=99)[2]
    assert low is not None and high is not None
    assert low.quantization != high.quantization


def test_output_types(tmp_path: Path) -> None:
    _, item, _ = draw(tmp_path / "a", outputType="base64Data", outputFormat="PNG")
    assert Image.open(io.BytesIO(base64.b64decode(item["imageBase64Data"]))).format == "PNG"
    _, item, _ = draw(tmp_path / "b", outputType="dataURI", outputFormat="WEBP")
    head, _, body = item["imageDataURI"].partition(",")
    assert (
        head == "data:image/webp;base64" and Image.open(io.BytesIO(base64.b64decode(body))).format == "WEBP"
    )


def test_seed_is_drawn_where_absent_and_each_result_has_its_own(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            _, told = await stage.run(numberResults=3)
            seeds = [item["seed"] for item in told["data"]]
            assert len(set(seeds)) == 3 and len({item["imageUUID"] for item in told["data"]}) == 3
            drawn = sorted(graph["sampler"]["inputs"]["seed"] for graph in stage.painter.graphs)
            assert drawn == sorted(seed % 2**32 for seed in seeds)
            _, told = await stage.run(seed=9223372036854776000)
            assert told["data"][0]["seed"] == 9223372036854776000

    asyncio.run(run())


def test_cost_is_told_by_the_owners_price_only_when_asked(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path, picture_usd=0.25) as stage:
            _, told = await stage.run(includeCost=True)
            assert told["data"][0]["cost"] == 0.25
            _, told = await stage.run()
            assert "cost" not in told["data"][0]

    asyncio.run(run())


def test_references_by_base64_data_uri_uuid_and_own_address(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            task = {
                "taskType": "imageUpload",
                "taskUUID": "ac17b01d-8c5d-46f9-bd42-227280d05ff3",
                "image": PNG,
            }
            _, told = await stage.ask("POST", "/runware/v1", [task])
            uploaded = told["data"][0]
            assert (await stage.fetch(uploaded["imageURL"])).size == (96, 64)
            _, told = await stage.run(outputFormat="PNG")
            made = told["data"][0]
            images = [PNG, f"data:image/png;base64,{PNG}", uploaded["imageUUID"], made["imageURL"]]
            status, told = await stage.run(inputs={"referenceImages": images})
            assert status == 200, told
            graph, files = stage.painter.graphs[-1], stage.painter.pictures[-1]
            names = [graph[f"picture {number}"]["inputs"]["image"] for number in (1, 2, 3, 4)]
            assert names[0] == names[1] == names[2] != names[3]
            assert {Image.open(io.BytesIO(files[name])).size for name in names} == {(96, 64), (256, 192)}
            assert graph["references"]["inputs"]["images.image_4"] == ["picture 4", 0]
            assert graph["prompt"]["inputs"]["references"] == ["references", 0]
            status, _ = await stage.run(inputs={"referenceImages": [made["imageUUID"]]})
            assert status == 200

    asyncio.run(run())


def test_ttl_is_how_long_the_address_works(tmp_path: Path) -> None:
    async def run() -> None:
        passed = [0.0]
        async with run_service(tmp_path, clock=Clock(steady=lambda: passed[0])) as stage:
            _, told = await stage.run(ttl=60)
            path = told["data"][0]["imageURL"].removeprefix(BASE)
            assert (await stage.answer("GET", path, key="")).status == 200
            passed[0] = 61
            assert (await stage.answer("GET", path, key="")).status == 404
            stage.service.tidy()
            assert stage.service.store.size() == 0

    asyncio.run(run())


def test_async_is_acknowledged_polled_and_archived(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            stage.painter.hold = asyncio.Event()
            status, told = await stage.run(deliveryMethod="async", numberResults=2)
            task_id = told["data"][0]["taskUUID"]
            assert status == 200 and told == {"data": [{"taskType": "imageInference", "taskUUID": task_id}]}
            poll = [{"taskType": "getResponse", "taskUUID": task_id}]
            while stage.service.dispatcher.progress == {}:
                await asyncio.sleep(0.01)
            _, told = await stage.ask("POST", "/runware/v1", poll)
            assert told["data"][0]["status"] == "processing" and 0 < told["data"][0]["progress"] < 100
            archive = [{"taskType": "getTaskDetails", "taskUUID": task_id}]
            _, told = await stage.ask("POST", "/runware/v1", archive)
            assert told["data"][0]["response"] is None
            stage.painter.hold.set()
            job = stage.service.book.find_job(1, task_id)
            await stage.service.wait_for_all(job.id)
            _, told = await stage.ask("POST", "/runware/v1", poll)
            assert [item["status"] for item in told["data"]] == ["success", "success"]
            _, told = await stage.ask("POST", "/runware/v1", archive)
            assert len(told["data"][0]["response"]["data"]) == 2

    asyncio.run(run())


def test_bfls_ten_fields(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            body = {
                "prompt": "a fox", "input_image": PNG, "input_image_2": PNG, "input_image_3": PNG,
                "input_image_4": PNG, "seed": 4, "width": 300, "height": 64, "safety_tolerance": 5,
                "output_format": "png",
            }  # fmt: skip
            status, told = await stage.ask("POST", "/bfl/v1/flux-2-klein-4b", body)
            assert status == 200 and told["output_mp"] == 0.02 and told["input_mp"] == 0.02
            job = stage.service.book.read_job(told["id"])
            await stage.service.wait_for_all(job.id)
            graph = stage.painter.graphs[0]
            assert [graph["sampler"]["inputs"][name] for name in ("width", "height", "seed")] == [304, 128, 4]
            assert graph["loader"]["inputs"]["diffusion_model"] == "flux-2-klein-4b.safetensors"
            assert "picture 4" in graph
            _, told = await stage.ask("GET", told["polling_url"].removeprefix(BASE))
            assert told["status"] == "Ready" and told["result"]["seed"] == 4
            picture = await stage.fetch(told["result"]["sample"])
            assert picture.format == "PNG" and picture.size == (300, 64)
            _, told = await stage.ask("POST", "/bfl/v1/flux-2-klein-4b", {"prompt": "x", "input_image": PNG})
            await stage.service.wait_for_all(told["id"])
            assert stage.painter.graphs[-1]["sampler"]["inputs"]["width"] == 128  # 96 x 64, the input's size
            status, told = await stage.ask("GET", "/bfl/v1/credits")
            assert status == 200 and told["credits"] > 0

    asyncio.run(run())


def test_openai_generations_and_edits(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path) as stage:
            body = {
                "prompt": "a fox", "model": "flux-2-klein-base-4b", "n": 2, "size": "512x256",
                "quality": "high", "response_format": "b64_json", "output_format": "webp",
                "output_compression": 40,
            }  # fmt: skip
            status, told = await stage.ask("POST", "/openai/v1/images/generations", body)
            assert status == 200 and len(told["data"]) == 2 and told["created"] > 0
            picture = Image.open(io.BytesIO(base64.b64decode(told["data"][0]["b64_json"])))
            assert picture.format == "WEBP" and picture.size == (512, 256)
            assert stage.painter.graphs[0]["sampler"]["inputs"]["acceleration"] == "none"
            _, told = await stage.ask(
                "POST", "/openai/v1/images/generations", {"prompt": "x", "model": "dall-e-3"}
            )
            assert (await stage.fetch(told["data"][0]["url"])).size == (1024, 1024)
            form = b"".join(
                b'--X\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % part
                for part in (
                    (b"prompt", b"", b"image 1 in blue"),
                    (b"image[]", b'; filename="a.png"', make_png((320, 160))),
                    (b"image[]", b'; filename="b.png"', make_png((64, 64))),
                    (b"n", b"", b"1"),
                )
            )
            status, told = await stage.ask(
                "POST", "/openai/v1/images/edits", form + b"--X--\r\n",
                content_type="multipart/form-data; boundary=X",
            )  # fmt: skip
            assert status == 200, told
            picture = Image.open(io.BytesIO(base64.b64decode(told["data"][0]["b64_json"])))
            assert picture.size == (320, 160) and "picture 2" in stage.painter.graphs[-1]
            _, told = await stage.ask("GET", "/openai/v1/models")
            assert {"flux-2-klein-4b", "gpt-image-1", "runware:400@6"} <= {one["id"] for one in told["data"]}

    asyncio.run(run())


def test_openais_mask_paints_a_part_of_the_first_picture(tmp_path: Path) -> None:
    def make_form(mask: bytes) -> bytes:
        parts = ((b"prompt", b"", b"a frog"), (b"image[]", b'; filename="a"', make_png((100, 80))))
        parts += ((b"image[]", b'; filename="b"', make_png()), (b"mask", b'; filename="m"', mask))
        head = b'--X\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        return b"".join(head % part for part in parts) + b"--X--\r\n"

    def make_mask(size: tuple[int, int], clear: bool) -> bytes:
        mask = Image.new("RGBA", size, (0, 0, 0, 255))
        if clear:
            mask.paste((0, 0, 0, 0), (10, 10, 40, 40))
        out = io.BytesIO()
        mask.save(out, "PNG")
        return out.getvalue()

    async def run() -> None:
        async with run_service(tmp_path) as stage:

            async def send(mask: bytes) -> tuple[int, Any]:
                kind = "multipart/form-data; boundary=X"
                return await stage.ask("POST", "/openai/v1/images/edits", make_form(mask), content_type=kind)

            assert (await send(make_mask((100, 80), clear=False)))[1]["error"]["param"] == "mask"
            assert (await send(make_mask((80, 100), clear=True)))[1]["error"]["param"] == "mask"
            status, told = await send(make_mask((100, 80), clear=True))
            assert status == 200, told
            graph, files = stage.painter.graphs[0], stage.painter.pictures[0]
            assert graph["inpaint"]["inputs"]["mask"] == ["mask", 1]
            assert graph["inpaint"]["inputs"]["prompt"] == "a frog" and "sampler" not in graph
            assert graph["references"]["inputs"]["images.image_1"] == ["picture 2", 0]
            assert len(files) == 3 and graph["mask"]["inputs"]["image"] in files
            picture = Image.open(io.BytesIO(base64.b64decode(told["data"][0]["b64_json"])))
            assert picture.size == (100, 80)

    asyncio.run(run())


def test_klein_nano_stands_in_at_its_own_size_and_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        async with run_service(tmp_path, files=(NANO, "other.safetensors")) as stage:
            told = await stage.answer("POST", "/runware/v1", [make_task(width=1152, height=768)])
            assert "klein-nano" in told.headers["X-Kleinod-Model"]
            graph = stage.painter.graphs[0]
            assert graph["loader"]["inputs"]["diffusion_model"] == NANO
            assert (graph["sampler"]["inputs"]["width"], graph["sampler"]["inputs"]["height"]) == (192, 128)
            picture = await stage.fetch(json.loads(told.body)["data"][0]["imageURL"])
            assert picture.size == (1152, 768)
        async with run_service(tmp_path, files=(NANO,), stand_in=False) as stage:
            status, told = await stage.run()
            assert status == 400 and told["errors"][0]["code"] == "unknownModel"
            assert "flux-2-klein-base-4b.safetensors" in told["errors"][0]["message"]
        async with run_service(tmp_path, files=(NANO, "flux-2-klein-4b.safetensors")) as stage:
            status, told = await stage.run(model="runware:400@5")
            assert status == 400 and told["errors"][0]["code"] == "unknownModel"
        async with run_service(
            tmp_path, files=("mine.safetensors",), models={"runware:400@5": "mine.safetensors"}
        ) as stage:
            status, _ = await stage.run(model="runware:400@5")
            assert status == 200
            assert stage.painter.graphs[0]["loader"]["inputs"]["diffusion_model"] == "mine.safetensors"

    asyncio.run(run())
