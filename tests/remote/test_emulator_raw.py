"""The second emulator keeps its word: the documents by default, each fault exactly as scripted."""

from __future__ import annotations

import ast
import gzip
import http.client
import io
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.emulator import runware as first_runware
from tests.emulator_raw import Plan, RawEmulator, Turn, read_pixels
from tests.emulator_raw import runware as second_runware

KEY = "raw-key-0123456789abcdef"
TASK = {
    "taskType": "imageInference",
    "taskUUID": "4d3a4156-5e5e-45db-b73c-a3200a7446ed",
    "model": "runware:400@5",
    "positivePrompt": "a fox",
    "width": 128,
    "height": 144,
    "seed": 5,
    "deliveryMethod": "async",
    "outputFormat": "PNG",
}
ASK = [{"taskType": "getResponse", "taskUUID": TASK["taskUUID"]}]


@pytest.fixture
def raw() -> Iterator[RawEmulator]:
    with RawEmulator(KEY) as running:
        yield running


def call(raw: RawEmulator, method: str, target: str, body: object = None, **headers: str) -> tuple:
    """(status, headers, bytes) by Python's own client."""
    line = http.client.HTTPConnection(urlsplit(raw.url).netloc, timeout=5)
    try:
        line.request(method, target, None if body is None else json.dumps(body), headers)
        answer = line.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        line.close()


def runware(raw: RawEmulator, tasks: object, key: str = KEY) -> tuple[int, dict]:
    status, _, body = call(raw, "POST", "/v1", tasks, Authorization=f"Bearer {key}")
    return status, json.loads(body)


def bfl(raw: RawEmulator, method: str, target: str, body: object = None) -> tuple[int, dict]:
    status, _, data = call(raw, method, target, body, **{"x-key": KEY})
    return status, json.loads(data)


def test_it_shares_no_code_with_the_pack_or_the_other_emulator() -> None:
    for file in Path(second_runware.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names | {"PIL"}, file.name


def test_runware_from_submit_to_picture(raw: RawEmulator) -> None:
    assert runware(raw, [TASK]) == (
        200,
        {"data": [{"taskType": "imageInference", "taskUUID": TASK["taskUUID"]}]},
    )
    assert runware(raw, ASK)[1]["data"][0]["status"] == "processing"
    (item,) = runware(raw, ASK)[1]["data"]
    assert (item["status"], item["seed"]) == ("success", 5)
    status, headers, data = call(raw, "GET", urlsplit(item["imageURL"]).path)
    picture = Image.open(io.BytesIO(data))
    assert (status, headers["Content-Type"], picture.size) == (200, "image/png", (128, 144))
    assert picture.tobytes() == read_pixels("a fox", 5, 128, 144) != read_pixels("a fox", 6, 128, 144)
    assert runware(raw, [TASK])[1]["errors"][0]["code"] == "conflictTaskUUID"
    assert len(raw.accepted) == 1 and raw.accepted[0].items[0].fetched == 1


def test_bfl_from_submit_to_picture(raw: RawEmulator) -> None:
    body = {"prompt": "a fox", "seed": 3, "width": 64, "height": 80, "output_format": "jpeg"}
    status, answer = bfl(raw, "POST", "/v1/flux-2-klein-4b", body)
    assert status == 200 and answer["polling_url"].startswith(raw.url) and answer["cost"] == 1.4
    place = answer["polling_url"].removeprefix(raw.url)
    assert bfl(raw, "GET", place)[1]["status"] == "Pending"
    ready = bfl(raw, "GET", place)[1]
    assert (ready["status"], ready["result"]["seed"]) == ("Ready", 3)
    sample = ready["result"]["sample"].removeprefix(raw.url)
    assert Image.open(io.BytesIO(call(raw, "GET", sample)[2])).size == (64, 80)
    assert call(raw, "GET", sample.partition("?")[0])[0] == 403
    assert bfl(raw, "GET", "/v1/credits") == (200, {"credits": 1250.0})
    assert call(raw, "POST", "/v1/flux-2-klein-4b", body, **{"x-key": "another"})[0] == 403
    assert len(raw.accepted) == 1


@pytest.mark.parametrize("kind", ["base64Data", "dataURI"])
def test_pictures_inside_the_answer_and_a_batch(kind: str, raw: RawEmulator) -> None:
    raw.plan(Plan(items=("picture", "failure", "flagged", "moderation", "never")))
    task = TASK | {"numberResults": 5, "outputType": kind, "safety": {"checkContent": True}}
    runware(raw, [task])
    runware(raw, ASK)
    body = runware(raw, ASK)[1]
    name = {"base64Data": "imageBase64Data", "dataURI": "imageDataURI"}[kind]
    done = [item for item in body["data"] if item["status"] == "success"]
    assert [item["seed"] for item in done] == [5, 7]
    assert [item["NSFWContent"] for item in done] == [False, True]
    assert all(len(item[name]) > 100 for item in done)
    assert [error["code"] for error in body["errors"]] == ["inferenceFailed", "contentModerated"]
    assert [item["status"] for item in body["data"]].count("processing") == 1


def test_items_come_one_by_one_and_may_be_whispered(raw: RawEmulator) -> None:
    raw.plan(Plan(after=0, between=1, whispers=True))
    runware(raw, [TASK | {"numberResults": 3}])
    assert [len(runware(raw, ASK)[1]["data"]) for _ in range(4)] == [1, 2, 3, 3]


def test_a_forgotten_job_and_an_unknown_one_look_alike(raw: RawEmulator) -> None:
    raw.plan(Plan(lost_id=True))
    runware(raw, [TASK])
    assert runware(raw, ASK) == (200, {"data": []})
    assert bfl(raw, "GET", "/v1/get_result?id=nobody")[0] == 404


@pytest.mark.parametrize(
    ("changes", "parameter"),
    [
        ({"width": 130}, "width"),
        ({"CFGScale": 3.505}, "CFGScale"),
        ({"seed": 2**63 + 10**6}, "seed"),
        ({"negativePrompt": ""}, "negativePrompt"),
        ({"scheduler": "Eule"}, "scheduler"),
        ({"acceleratorOptions": {"fbcache": True}}, "acceleratorOptions.fbcache"),
        ({"inputs": {"seedImage": "x"}}, "inputs"),
        ({"lora": {"model": "a:b@c"}}, "lora"),
        ({"taskUUID": "4d3a4156-5e5e-15db-b73c-a3200a7446ed"}, "taskUUID"),
        ({"steps": True}, "steps"),
    ],
)
def test_what_the_document_forbids_is_refused_and_not_billed(changes, parameter, raw: RawEmulator) -> None:
    status, body = runware(raw, [TASK | changes])
    assert status == 400 and body["errors"][0]["parameter"] == parameter
    assert raw.accepted == []


NUMBERS = st.one_of(st.integers(-2, 2**64), st.floats(-1, 60).map(lambda x: round(x, 2)), st.booleans())


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "width": st.integers(100, 2100),
            "steps": NUMBERS,
            "seed": NUMBERS,
            "numberResults": NUMBERS,
            "outputQuality": NUMBERS,
            "outputType": st.sampled_from(["URL", "dataURI", "url"]),
            "negativePrompt": st.text(max_size=3),
            "unknown": st.just(1),
            "safety": st.fixed_dictionaries({}, optional={"mode": st.sampled_from(["none", "fast", "full"])}),
            "acceleratorOptions": st.fixed_dictionaries(
                {}, optional={"cacheStartStep": st.integers(-1, 60), "cacheEndStep": st.integers(0, 60)}
            ),
        },
    )
)
def test_both_emulators_judge_a_request_alike(changes: dict) -> None:
    task = TASK | {"height": 256} | changes
    verdicts = []
    for check, error in (
        (first_runware.check, first_runware.Refusal),
        (second_runware.check_task, second_runware.Faulty),
    ):
        try:
            check(task)
            verdicts.append("taken")
        except error:
            verdicts.append("refused")
    assert verdicts[0] == verdicts[1]


def test_every_fault_is_sent_as_scripted(raw: RawEmulator) -> None:
    echo = lambda exchange: {"detail": exchange.headers["x-key"]}  # noqa: E731
    raw.script(
        "bfl.credits",
        Turn(status=201, bom=True),
        Turn(gzipped=True),
        Turn(chunked=True, headers={"Retry-After": "7"}),
        Turn(body=b"<html>", kind="text/html", status=502),
        Turn(body=echo),
    )
    answers = [call(raw, "GET", "/v1/credits", **{"x-key": KEY}) for _ in range(6)]
    plain = answers[5][2]
    assert (answers[0][0], answers[0][2]) == (201, b"\xef\xbb\xbf" + plain)
    assert answers[1][1]["Content-Encoding"] == "gzip" and gzip.decompress(answers[1][2]) == plain
    assert answers[2][1]["Retry-After"] == "7" and answers[2][2] == plain
    assert (answers[3][0], answers[3][2]) == (502, b"<html>")
    assert json.loads(answers[4][2]) == {"detail": KEY}
    assert raw.left() == {} and raw.count("bfl.credits") == 6


def test_answers_cut_short_count_and_requests_cut_short_do_not(raw: RawEmulator) -> None:
    body = {"prompt": "a fox"}
    raw.script(
        "bfl.submit", Turn(cut=0), Turn(cut=0, work=False), Turn(stated=10**6), Turn(cut=5, reset=True)
    )
    for _ in range(4):
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            bfl(raw, "POST", "/v1/flux-2-klein-4b", body)
    assert len(raw.accepted) == 3
    raw.script("bfl.reading", Turn(hang_up=4))
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        bfl(raw, "POST", "/v1/flux-2-klein-4b", body)
    assert (len(raw.accepted), raw.unfinished) == (3, 1)
    with socket.create_connection(urlsplit(raw.url).netloc.split(":")) as line:
        line.sendall(b"POST /v1 HTTP/1.1\r\nContent-Length: 100\r\n\r\n[")
    assert runware(raw, [TASK])[0] == 200  # it still serves, and the unfinished request is on no bill
    assert len(raw.accepted) == 4


def test_it_reads_as_slowly_as_a_slow_line(raw: RawEmulator) -> None:
    raw.script("bfl.reading", Turn(read_rate=200_000))
    done = threading.Event()
    body = {"prompt": "a fox", "input_image": "A" * 100_000}

    def send() -> None:
        bfl(raw, "POST", "/v1/flux-2-klein-4b", body)
        done.set()

    threading.Thread(target=send, daemon=True).start()
    assert not done.wait(0.2)
    assert done.wait(5) and len(raw.accepted) == 1
