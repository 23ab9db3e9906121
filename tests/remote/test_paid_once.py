"""Money under an emulator that somebody else wrote: every job is paid once and no picture paid for is lost.

The rows are those of the issue on money; each case has two of its kind beside it where that was cheap.
"""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kleinod_pure.remote import errors, images, job_request
from kleinod_pure.remote.concurrency import name_lock
from kleinod_pure.remote.engine import Engine
from kleinod_pure.remote.estimate import estimate
from kleinod_pure.remote.job_list import list_jobs, recover_to_files
from kleinod_pure.remote.ledger import ACCEPTED, FAILED, REFUSED, SAVED, UNKNOWN, Item, Job, Ledger
from kleinod_pure.remote.limits import Limits
from kleinod_pure.remote.results import deliver
from kleinod_pure.remote.retry import RetryPolicy
from kleinod_pure.remote.submission import CONFLICT_POLLS

from tests.emulator_raw import Plan, RawEmulator, Turn, read_pixels

from .conftest import CANARY, HeldDeadline, wait_until

ROOT = Path(__file__).resolve().parents[2]
SERVICES = pytest.mark.parametrize("service", ["runware", "bfl"])


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawEmulator]:
    """The raw emulator in the place of ours: every fixture of `conftest.py` then talks to it."""
    with RawEmulator(CANARY) as running:
        for name in ("RUNWARE", "BFL"):
            monkeypatch.setenv(f"KLEINOD_{name}_URL", running.url)
            monkeypatch.setenv(f"{name}_API_KEY", CANARY)
        yield running


@pytest.fixture
def ask(runware_request, bfl_request) -> Callable:
    """ask("runware", ...) or ask("bfl", ...): a request."""
    return lambda service, **inputs: (runware_request if service == "runware" else bfl_request)(**inputs)


def expect_pixels(result, seed: int = 0) -> None:
    pixels = np.frombuffer(read_pixels("a fox", seed, 256, 192), np.uint8).reshape(192, 256, 3) / 255
    assert np.abs(result.images[0].pixels - pixels).max() < 1e-3


def nobody_works_on(engine: Engine, job: Job) -> bool:
    """A job is written down as saved a moment before its thread lets go of it; until then it is no heir's."""
    return engine.locks.is_free(name_lock(job.request_hash, job.take))


# --- 1. The seed of a run that ended early


@SERVICES
def test_after_an_interrupt_another_seed_gets_the_picture_that_was_paid(
    service, emulator, engine, fetch, ask
) -> None:
    emulator.plan(Plan(after=4))
    handle = engine.launch(lambda: ask(service, seed=1))
    wait_until(lambda: emulator.accepted)
    handle.leave()
    second = fetch(ask(service, seed=2))
    assert [image.seed for image in second.images] == [1] and len(emulator.accepted) == 1
    assert not second.paid_now and "seed 1" in second.note and "seed 2" in second.note
    third = fetch(ask(service, seed=2))
    assert [image.seed for image in third.images] == [2] and third.paid_now and not third.note
    assert len(emulator.accepted) == 2


@SERVICES
def test_a_picture_that_landed_without_anybody_comes_first(
    service, emulator, make_engine, fetch, ask, miss_deadline
) -> None:
    """Also after a restart, and after the deadline."""
    first = make_engine()
    handle = first.launch(lambda: ask(service, seed=1))
    wait_until(lambda: emulator.accepted)
    handle.leave()
    wait_until(lambda: (job := first.ledger.recent()[0]).state == SAVED and nobody_works_on(first, job))
    heir = make_engine()
    assert [image.seed for image in fetch(ask(service, seed=7), by=heir).images] == [1]
    emulator.plan(Plan(after=10**6))
    with pytest.raises(errors.StillRunning):
        miss_deadline(heir, ask(service, seed=3)).result(90)
    emulator.accepted[-1].items[0].ready_at = 0
    assert [image.seed for image in fetch(ask(service, seed=9), by=heir).images] == [3]
    assert len(emulator.accepted) == 2


def test_only_the_seed_may_differ_and_only_of_what_nobody_waits_for(emulator, engine, fetch, ask) -> None:
    emulator.plan(Plan(after=30), Plan(after=30))
    left = engine.launch(lambda: ask("runware", seed=1))
    kept = engine.launch(lambda: ask("runware", seed=2))
    wait_until(lambda: len(emulator.accepted) == 2)
    left.leave()
    assert fetch(ask("runware", seed=5, steps=9)).images[0].seed == 5
    assert fetch(ask("runware", prompt="a cat", seed=5)).images[0].seed == 5
    assert fetch(ask("runware", seed=5)).images[0].seed == 1
    assert fetch(ask("runware", seed=6)).images[0].seed == 6
    assert kept.result(90).images[0].seed == 2
    assert len(emulator.accepted) == 5


def test_a_refused_job_does_not_come_back_in_place_of_another(emulator, fetch, ask) -> None:
    emulator.script("runware.submit", Turn(work=False, status=402, body={"errors": []}))
    with pytest.raises(errors.Refused, match="balance is empty"):
        fetch(ask("runware", seed=1))
    assert fetch(ask("runware", seed=2)).images[0].seed == 2


# --- 2. Recover


@SERVICES
def test_recover_puts_the_pictures_into_the_output_folder(
    service, emulator, engine, ask, miss_deadline
) -> None:
    emulator.plan(Plan(after=10**6))
    assert isinstance(miss_deadline(engine, ask(service)).exception(90), errors.StillRunning)
    emulator.accepted[0].items[0].ready_at = 0
    saved: dict[str, bytes] = {}

    def save(files: list[bytes], names: list[str]) -> list[dict[str, str]]:
        saved.update(zip(names, files, strict=True))
        return [{"filename": name, "subfolder": "", "type": "output"} for name in names]

    (job,) = engine.ledger.recent()
    told = recover_to_files(engine, job.id, save)
    assert len(told["files"]) == len(saved) == len(emulator.accepted) == 1
    assert images.decode(next(iter(saved.values()))).shape == (192, 256, 3)
    assert list_jobs(engine)["jobs"][0]["state"] == SAVED
    assert recover_to_files(engine, job.id, save) == told and len(saved) == 1


def test_recover_of_a_job_without_a_picture_says_why(emulator, engine, fetch, ask) -> None:
    emulator.plan(Plan(items=("moderation",)))
    fetch(ask("bfl"))
    (job,) = engine.ledger.recent()
    with pytest.raises(errors.JobFailed, match="Protected content"):
        recover_to_files(engine, job.id, lambda files, names: [])


# --- 3. Uploads


BIG = np.random.default_rng(0).random((1, 1024, 1024, 3), np.float32)  # 4 MB on the wire
SLOW = RetryPolicy(scale=0.02, connect=0.3, stall=2, read=3, read_sync=4, download=2)


@SERVICES
def test_a_slow_line_takes_as_long_as_it_takes(service, emulator, make_engine, fetch, ask) -> None:
    """A body that needs far longer than a connection may: what counts is that it moves."""
    name = "images" if service == "runware" else "input_image"
    emulator.script(f"{service}.reading", Turn(read_rate=2e6))
    engine = make_engine(policy=SLOW)
    told: set[str] = set()
    handle = engine.launch(lambda: ask(service, deadline=60, **{name: BIG}))
    while not handle.done():
        told.add(handle.progress.words)
        time.sleep(0.01)
    assert handle.result().images[0].pixels is not None
    assert len(emulator.accepted) == 1 and emulator.count(f"{service}.submit") == 1
    assert any(re.fullmatch(r"Sending [1-3]\.\d of 4\.\d MB", words) for words in told), told


@SERVICES
def test_a_body_that_was_not_finished_was_not_sent(service, emulator, engine, fetch, ask) -> None:
    """The other side hangs up in the middle, again and again: nothing can have been accepted."""
    name = "images" if service == "runware" else "input_image"
    emulator.script(f"{service}.reading", *[Turn(hang_up=200_000)] * 5)
    with pytest.raises(errors.Refused, match="Nothing was sent or billed") as caught:
        fetch(ask(service, **{name: BIG}))
    assert "may be billed" not in str(caught.value) and emulator.accepted == []
    assert fetch(ask(service, **{name: BIG})).paid_now
    assert len(emulator.accepted) == 1


def test_an_interrupt_stops_the_sending(emulator, engine, ask) -> None:
    emulator.script("bfl.reading", Turn(read_rate=1e6))
    handle = engine.launch(lambda: ask("bfl", input_image=BIG))
    wait_until(lambda: re.match(r"Sending [01]\.\d of", handle.progress.words))
    handle.leave()
    with pytest.raises(errors.Abandoned, match="Nothing was billed"):
        handle.result(90)
    assert emulator.accepted == [] and engine.ledger.recent()[0].state == REFUSED


def test_the_user_may_send_smaller_files(emulator, ask) -> None:
    sizes = {
        form: len(ask("runware", images=BIG, upload_format=form).body["inputs"]["referenceImages"][0])
        for form in images.UPLOAD_FORMATS
    }
    assert sizes["WEBP"] < sizes["JPG"] < sizes["PNG"]
    with pytest.raises(ValueError, match="upload_format"):
        ask("bfl", input_image=BIG, upload_format="BMP")


def test_the_size_is_told_before_the_run(emulator, engine) -> None:
    sizes = {"references": "2", "pixels": "2024x2024,2024x2024"}
    png, webp = (
        estimate(engine, "runware", sizes | {"upload_format": form})["upload_bytes"]
        for form in ("PNG", "WEBP")
    )
    assert 10e6 < png < 40e6 and webp < png / 3
    assert estimate(engine, "bfl", {})["upload_bytes"] == 0


# --- 4. Errors inside a poll


def error(**more) -> dict:
    return {"errors": [{"message": "No.", **more}]}


@pytest.mark.parametrize(
    "body",
    [
        lambda seen: error(
            code="rateLimitExceeded", taskType="getResponse", taskUUID=seen.json[0]["taskUUID"]
        ),
        lambda seen: error(code="invalidApiKey"),
        lambda seen: error(code="somethingBroke"),
        lambda seen: error(code="inferenceError", taskUUID=None, taskType="imageInference"),
        lambda seen: error(
            code="providerTimeout", taskType="imageInference", taskUUID=seen.json[0]["taskUUID"]
        ),
        lambda seen: error(code="inferenceError", taskUUID=str(uuid.uuid4())),
        lambda seen: error(code="internalServerError", taskUUID=seen.json[0]["taskUUID"]),
        lambda seen: {"data": [{"taskUUID": seen.json[0]["taskUUID"], "status": "error", "error": "busy"}]},
        lambda seen: {"error": {"code": "taskNotFound"}},
    ],
)
def test_runware_one_error_in_a_poll_ends_nothing(body, emulator, fetch, ask) -> None:
    emulator.script("runware.poll", Turn(work=False, status=200, body=body))
    expect_pixels(fetch(ask("runware")))
    assert len(emulator.accepted) == 1 and emulator.left() == {}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("status", ["Error", "Failed", "error"])
def test_bfl_one_error_in_a_poll_ends_nothing(status, times, emulator, fetch, ask) -> None:
    emulator.script("bfl.poll", *[Turn(work=False, body={"status": status, "result": None})] * times)
    expect_pixels(fetch(ask("bfl")))
    assert len(emulator.accepted) == 1


@SERVICES
def test_an_error_that_stays_ends_the_job(service, emulator, engine, fetch, ask) -> None:
    emulator.plan(Plan(items=("failure",)))
    with pytest.raises(errors.JobFailed, match="accepted the job and then failed"):
        fetch(ask(service))
    assert engine.ledger.recent()[0].state == FAILED and len(emulator.accepted) == 1


def test_what_passes_is_asked_until_the_deadline_and_told_then(emulator, engine, ask, miss_deadline) -> None:
    body = error(code="rateLimitExceeded", taskType="getResponse")
    emulator.script("runware.poll", *[Turn(work=False, status=200, body=body)] * 20_000)
    asked = miss_deadline(engine, ask("runware"), lambda: emulator.count("runware.poll") > 9)
    with pytest.raises(errors.StillRunning, match="last said: No"):
        asked.result(90)
    assert engine.ledger.recent()[0].state == ACCEPTED


# --- 5. Batches


def test_pictures_that_come_after_a_failure_are_not_dropped(emulator, fetch, ask) -> None:
    """One fails at once, the others are not even mentioned until long afterwards."""
    emulator.plan(Plan(items=("failure", "picture", "picture"), after=1, between=9, whispers=True))
    result = fetch(ask("runware", number_results=3))
    assert [image.pixels is not None for image in result.images] == [True, True, False]
    assert len(emulator.accepted) == 1


def test_at_the_deadline_a_batch_gives_what_it_has_and_stays_open(
    emulator, engine, fetch, ask, miss_deadline
) -> None:
    emulator.plan(Plan(items=("picture", "never"), whispers=True))
    request = ask("runware", number_results=2)
    result = miss_deadline(engine, request, lambda: engine.ledger.items(engine.ledger.recent()[0].id)).result(
        30
    )
    assert len(deliver(result, "error").batches) == 1 and "1 of 2 pictures" in result.note
    assert engine.ledger.recent()[0].state == ACCEPTED
    emulator.accepted[0].items[1].fate, emulator.accepted[0].items[1].ready_at = "picture", 0
    assert len(fetch(ask("runware", number_results=2)).images) == 2
    assert len(emulator.accepted) == 1


# --- 6. Answers that carry an id


@pytest.mark.parametrize(
    "turn",
    [
        Turn(status=201),
        Turn(status=202),
        Turn(bom=True),
        Turn(gzipped=True),
        Turn(chunked=True),
        Turn(gzipped=True, bom=True, status=202),
        Turn(stated=10_000),
        Turn(kind="text/plain"),
        Turn(body=lambda seen: json.dumps(seen.answer).encode("utf-16")),
        Turn(body=lambda seen: b"\n\n  " + json.dumps(seen.answer).encode() + b"\n"),
        Turn(body=lambda seen: seen.answer | {"cost": "1.4"}),
        Turn(body=lambda seen: json.dumps(seen.answer | {"rest": "x" * 900}).encode()[:-500]),
        Turn(status=500),
    ],
)
def test_bfl_any_answer_with_an_id_is_read(turn, emulator, fetch, ask) -> None:
    emulator.script("bfl.submit", turn)
    expect_pixels(fetch(ask("bfl")))
    assert len(emulator.accepted) == 1


def test_bfl_an_id_that_is_a_number(emulator, engine, fetch, ask) -> None:
    def rename(seen):
        emulator.accepted[-1].id = "90071992547409931"
        url = f"{emulator.url}/v1/get_result?id=90071992547409931"
        return {"id": 90071992547409931, "polling_url": url}

    emulator.script("bfl.submit", Turn(body=rename))
    expect_pixels(fetch(ask("bfl")))
    assert engine.ledger.recent()[0].vendor_id == "90071992547409931"


@pytest.mark.parametrize("where", ["runware.submit", "runware.poll", "picture", "bfl.poll"])
def test_a_proxy_that_always_gzips(where, emulator, fetch, ask) -> None:
    emulator.script(where, *[Turn(gzipped=True)] * 20)
    expect_pixels(fetch(ask("bfl" if where.startswith("bfl") else "runware")))
    assert len(emulator.accepted) == 1


def test_an_error_with_an_id_of_its_own_is_no_job(emulator, fetch, ask) -> None:
    emulator.script("bfl.submit", Turn(work=False, status=422, body={"id": "req-1", "detail": "too dark"}))
    with pytest.raises(errors.Refused, match="too dark"):
        fetch(ask("bfl"))


@SERVICES
def test_a_disk_that_is_full_after_the_post(
    service, emulator, engine, fetch, ask, monkeypatch, caplog
) -> None:
    """Neither id nor picture can be written down: the id is in the log, the picture arrives, nothing is paid
    again.
    """
    caplog.set_level("INFO")

    def full(*arguments, **more):
        raise sqlite3.OperationalError("database or disk is full")

    claim = Ledger.claim

    def claim_last(self, request):
        found = claim(self, request)
        for name in ("accept", "update", "add_item", "note_time"):
            monkeypatch.setattr(Ledger, name, full)
        return found

    monkeypatch.setattr(Ledger, "claim", claim_last)
    expect_pixels(fetch(ask(service)))
    assert emulator.accepted[0].id in caplog.text
    monkeypatch.undo()
    monkeypatch.setenv("KLEINOD_RUNWARE_URL", emulator.url)
    monkeypatch.setenv("KLEINOD_BFL_URL", emulator.url)
    for name in ("RUNWARE", "BFL"):
        monkeypatch.setenv(f"{name}_API_KEY", CANARY)
    expect_pixels(fetch(ask(service)))
    assert len(emulator.accepted) == 1


# --- 7. Nothing was sent


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def not_tls() -> Iterator[int]:
    """A port that answers a TLS hello with something else."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"HTTPS_PROXY": "socks5://127.0.0.1:9"}, "needs the Python package PySocks"),
        ({"REQUESTS_CA_BUNDLE": "/nowhere/bundle.pem"}, "does not exist (/nowhere/bundle.pem)"),
        ({"HTTPS_PROXY": "http://127.0.0.1:1"}, "the proxy http://127.0.0.1:1 does not let"),
        ({"KLEINOD_BFL_URL": "https://127.0.0.1:{not_tls}"}, "no secure connection to 127.0.0.1"),
        ({"KLEINOD_BFL_URL": "http://127.0.0.1:{closed}"}, "nothing answers at 127.0.0.1"),
    ],
)
def test_what_fails_before_the_first_byte_is_named_and_blocks_nothing(
    variables, named, emulator, engine, fetch, ask, monkeypatch, not_tls
) -> None:
    if "KLEINOD_BFL_URL" not in variables:
        monkeypatch.delenv("KLEINOD_BFL_URL")
    monkeypatch.setenv("NO_PROXY", "")
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(not_tls=not_tls, closed=_closed_port()))
    request = ask("bfl")
    for _ in range(2):
        with pytest.raises(errors.Refused, match="Nothing was sent or billed") as caught:
            fetch(request)
        assert named in str(caught.value)
    assert engine.ledger.recent()[0].state == REFUSED
    for name in variables:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KLEINOD_BFL_URL", emulator.url)
    expect_pixels(fetch(replace(request, base=emulator.url)))


# --- 8. Ids


def test_no_two_installations_make_the_same_id(emulator, tmp_path, ask) -> None:
    ids = set()
    for name in ("one", "two"):
        book = Ledger(tmp_path / name)
        ids.add(book.claim(ask("runware"))[0].id)
        book.close()
    assert len(ids) == 2 and all(uuid.UUID(one).version == 4 for one in ids)


def test_a_conflict_about_a_job_we_do_not_know_ends_after_a_few_questions(
    emulator, engine, fetch, ask, monkeypatch
) -> None:
    """Not at the deadline: here there is none."""
    monkeypatch.setattr(job_request, "Deadline", HeldDeadline)
    body = error(code="conflictTaskUUID")
    emulator.script("runware.submit", Turn(work=False, status=400, body=body))
    with pytest.raises(errors.Refused, match="which this computer did not send"):
        fetch(ask("runware", deadline=60))
    assert emulator.count("runware.submit") == 1 and emulator.count("runware.poll") <= CONFLICT_POLLS
    (before,) = engine.ledger.recent()
    expect_pixels(fetch(ask("runware")))
    assert [job.id for job in emulator.accepted] == [before.id]


# --- 9. No dry run


def test_no_price_is_asked_by_a_request_that_could_be_run(emulator, fetch, ask, runware_request) -> None:
    fetch(runware_request(limits=(1.0, 1.0), price_check="show before the run"))
    assert emulator.count("runware.submit") == len(emulator.accepted) == 1
    told = fetch(runware_request(seed=2, price_check="only show the price"))
    assert told.images == () and emulator.count("runware.submit") == 1
    assert not [seen for seen in emulator.seen if "dry" in str(seen.headers).lower()]


def test_prices_are_learned_from_what_was_paid(emulator, engine, fetch, runware_request) -> None:
    first = fetch(runware_request(seed=1))
    told = fetch(runware_request(seed=2, price_check="only show the price"))
    assert told.estimate_usd == first.cost_usd != runware_request().estimate_usd
    widgets = {"width": "256", "height": "192", "steps": "28"}
    assert estimate(engine, "runware", widgets)["usd"] == first.cost_usd


# --- 10. Two at once

CHILD = """
import sys, types
from pathlib import Path
root, folder = sys.argv[1:3]
pure = types.ModuleType("kleinod_pure"); pure.__path__ = [root + "/nodes"]; sys.modules["kleinod_pure"] = pure
from kleinod_pure.remote.engine import Engine
from kleinod_pure.remote.job_request import RunContext
from kleinod_pure.remote.retry import RetryPolicy
from kleinod_pure.remote.services import find_service
engine = Engine(Path(folder), policy=RetryPolicy(scale=0.02))
inputs = {"prompt": "a fox", "width": 256, "height": 192, "deadline": 30}
request = find_service("bfl").make_request(RunContext(), inputs)
print("ready", flush=True)
sys.stdin.readline()
print(len(engine.launch(lambda: request).result(40).images), flush=True)
"""


def test_two_processes_on_one_folder_send_one_job(emulator, tmp_path) -> None:
    emulator.script("bfl.submit", Turn(delay=1.0))
    command = [sys.executable, "-c", CHILD, str(ROOT), str(tmp_path / "user")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(2)]
    try:
        assert [child.stdout.readline() for child in children] == ["ready\n"] * 2
        told = [child.communicate("\n", timeout=60)[0] for child in children[:1]]
        told += [child.communicate("\n", timeout=60)[0] for child in children[1:]]
        assert told == ["1\n", "1\n"] and len(emulator.accepted) == 1
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_a_second_process_waits_while_the_first_is_still_sending(emulator, make_engine, ask) -> None:
    emulator.script("bfl.submit", Turn(delay=1.0))
    handles = [make_engine().launch(lambda: ask("bfl")) for _ in range(2)]
    assert not any(handle.exception(90) for handle in handles)
    assert len(emulator.accepted) == 1
    assert sorted(handle.result().paid_now for handle in handles) == [False, True]


def test_each_node_has_its_own_deadline(emulator, engine, ask) -> None:
    emulator.plan(Plan(after=10**6))
    short = engine.launch(lambda: ask("runware", deadline=0.4))
    long = engine.launch(lambda: ask("runware", deadline=60))
    wait_until(lambda: emulator.accepted)
    assert isinstance(short.exception(90), errors.StillRunning)
    emulator.accepted[-1].items[0].ready_at = 0
    assert long.result(90).images[0].pixels is not None
    assert len(emulator.accepted) == 1


# --- 11. The ledger's file

TABLES_OF_1_0_0 = """
create table jobs (
    id text primary key, service text not null, request_hash text not null, take integer not null,
    attempt integer not null, profile text not null, base text not null, endpoint text not null,
    node_id text not null, prompt_id text not null, state text not null, vendor_id text not null default '',
    polling_url text not null default '', wanted integer not null, estimate_usd real not null, cost_usd real,
    summary text not null, message text not null default '', created real not null, updated real not null,
    delivered integer not null default 0, unique (request_hash, take, attempt)
);
create table items (
    job_id text not null, item_id text not null, position integer not null, kind text not null, seed integer,
    cost_usd real, nsfw integer not null default 0, file text not null default '', width integer, height
    integer, message text not null default '', primary key (job_id, item_id)
);
"""


def _columns(file: Path, table: str) -> list[str]:
    with sqlite3.connect(file) as base:
        return [row[1] for row in base.execute(f"pragma table_info({table})")]


def test_a_ledger_of_1_0_0_is_read_and_can_go_back(emulator, tmp_path, ask) -> None:
    request, file = ask("runware"), tmp_path / "ledger.sqlite"
    with sqlite3.connect(file) as base:
        base.executescript(TABLES_OF_1_0_0)
        row = [
            "old",
            "runware",
            request.request_hash,
            0,
            0,
            "default",
            request.base,
            "imageInference",
            "1",
            "p",
        ]
        row += ["saved", "old", "", 1, 0.0019, 0.002, '{"width": 256}', "", time.time(), time.time(), 1]
        base.execute(f"insert into jobs values ({','.join('?' * 21)})", row)
        base.execute("insert into items values ('old','i',0,'picture',5,0.002,0,'old/0.png',256,192,'')")
    before = [_columns(file, table) for table in ("jobs", "items")]
    book = Ledger(tmp_path)
    job, fresh = book.claim(request)
    assert (job.id, fresh, book.items("old")[0].seed, book.note) == ("old", False, 5, "")
    book.close()
    assert [_columns(file, table) for table in ("jobs", "items")] == before


@pytest.mark.parametrize(
    "change",
    [
        "alter table jobs add column later text",
        "alter table jobs add column later text not null default 'x'",
        "alter table items add column later integer",
        "alter table jobs drop column delivered",
        "alter table jobs drop column wanted",
        "alter table items drop column nsfw",
        "create table items2 as select *, 1 as later from items; drop table items; "
        "create table items (job_id text not null, item_id text not null, position integer not null, "
        "kind text not null, later integer not null, primary key (job_id, item_id)); drop table items2",
        "drop table facts",
        "pragma user_version = 9",
    ],
)
def test_columns_more_or_less_stop_nothing(change, emulator, make_engine, fetch, ask) -> None:
    first = make_engine()
    old = fetch(ask("runware", seed=1), by=first)
    first.close()
    with sqlite3.connect(first.keys.folder / "ledger.sqlite") as base:
        base.executescript(change)
    heir = make_engine()
    expect_pixels(fetch(ask("runware", seed=2, steps=20), by=heir), 2)
    assert heir.ledger.read(old.job.id).state == SAVED and heir.ledger.note == ""
    assert len(list_jobs(heir)["jobs"]) == 2


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"", b"SQLite format 3\0" + bytes(4096)])
def test_a_damaged_ledger_is_set_aside(content, emulator, make_engine, fetch, ask, tmp_path) -> None:
    folder = tmp_path / "__kleinod"
    folder.mkdir()
    (folder / "ledger.sqlite").write_bytes(content)
    engine = make_engine()
    assert engine.keys.describe()["runware"]["default"]["set"]
    expect_pixels(fetch(ask("runware"), by=engine))
    aside = [file for file in folder.glob("ledger-damaged-*.sqlite")]
    if content:
        assert [file.read_bytes() for file in aside] == [content]
        assert aside[0].name in list_jobs(engine)["note"] and "set aside" in engine.ledger.note


def test_a_folder_that_cannot_be_made_is_a_sentence(emulator, make_engine, ask, tmp_path) -> None:
    (tmp_path / "__kleinod").write_text("a file in its place", encoding="utf-8")
    engine = make_engine()
    assert engine.keys.find("runware").value == CANARY
    with pytest.raises(errors.StorageError, match="cannot write to its folder.*Nothing was sent"):
        engine.launch(lambda: ask("runware")).result(90)
    assert emulator.accepted == []


def test_a_ledger_that_cannot_be_written_sends_nothing(emulator, engine, ask, monkeypatch) -> None:
    def full(self, request):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Ledger, "claim", full)
    with pytest.raises(errors.StorageError, match="disk is full.*Nothing was sent"):
        engine.launch(lambda: ask("bfl")).result(90)
    assert emulator.count("bfl.submit") == 0


# --- 12. Answers that cannot be stored


@pytest.mark.parametrize("seed", [2**63, 9223372036854776000, 2**80, -(2**70), 2**63 - 1, 0])
def test_seeds_of_any_size_arrive_and_are_kept(seed, emulator, make_engine, fetch, ask) -> None:
    def enlarge(seen):
        body = seen.answer
        for item in body.get("data", []):
            if "seed" in item:
                item["seed"] = seed
        return body

    emulator.script("runware.poll", *[Turn(body=enlarge)] * 5)
    assert fetch(ask("runware")).images[0].seed == seed
    assert fetch(ask("runware"), by=make_engine()).images[0].seed == seed


@SERVICES
def test_half_a_surrogate_and_other_words_that_no_file_takes(service, emulator, engine, fetch, ask) -> None:
    text = '"\\ud83d and \\u0000 and \\udfff"'
    bodies = {
        "runware": lambda seen: (
            b'{"errors": [{"code": "inferenceError", "taskUUID": "'
            + seen.json[0]["taskUUID"].encode()
            + b'", "message": '
            + text.encode()
            + b"}]}"
        ),
        "bfl": lambda seen: b'{"status": "Error", "details": {"error": ' + text.encode() + b"}}",
    }
    emulator.script(f"{service}.poll", *[Turn(work=False, status=200, body=bodies[service])] * 5)
    with pytest.raises(errors.JobFailed) as caught:
        fetch(ask(service))
    str(caught.value).encode()
    json.dumps(list_jobs(engine)).encode()


def test_an_item_that_cannot_be_stored_as_it_is(emulator, tmp_path) -> None:
    book = Ledger(tmp_path)
    book.add_item(Item("j", "i", 0, "picture", 2**90, float("inf"), False, "f", 8, 8, "\ud83d"))
    (item,) = book.items("j")
    assert (item.seed, item.cost_usd, item.message) == (2**90, None, "?")
    book.close()


# --- 13. Where pictures lie


@SERVICES
def test_a_strange_host_is_told_and_can_be_allowed(
    service, emulator, engine, fetch, ask, monkeypatch
) -> None:
    picture_base = {"runware": emulator.runware, "bfl": emulator.bfl}[service]
    picture_base.picture_base = "https://cdn.example.com"
    with pytest.raises(errors.UnknownHost, match="add cdn.example.com under Settings") as caught:
        fetch(ask(service))
    assert "https://cdn.example.com/" in str(caught.value) and "queue again" in str(caught.value)
    assert engine.ledger.recent()[0].state == ACCEPTED
    with pytest.raises(ValueError, match="no name of a host"):
        engine.hosts.write(service, ["https://cdn.example.com/x"])
    for bad in ("127.0.0.1", "localhost", "10.0.0.1", "a_b.example", "x" * 300, 5):
        with pytest.raises(ValueError):
            engine.hosts.write(service, [bad])
    engine.hosts.write(service, ["CDN.example.com"])
    asked: list[str] = []

    def fetch_there(self, url):
        asked.append(url)
        return images.encode(np.zeros((192, 256, 3), np.float32)), 200

    monkeypatch.setattr("kleinod_pure.remote.transport.check_public", lambda host: None)
    monkeypatch.setattr("kleinod_pure.remote.transport.Transport._fetch", fetch_there)
    assert fetch(ask(service)).images[0].pixels is not None
    assert asked[0].startswith("https://cdn.example.com/") and len(emulator.accepted) == 1


def test_a_picture_without_an_address_is_not_there_yet(emulator, fetch, ask) -> None:
    def strip(seen):
        body = seen.answer
        for item in body.get("data", []):
            item.pop("imageURL", None)
        return body

    emulator.script("runware.poll", *[Turn(body=strip)] * 4)
    expect_pixels(fetch(ask("runware")))
    assert len(emulator.accepted) == 1


# --- 14. Estimates and limits


def test_a_job_fetched_later_does_not_count_as_slow(emulator, engine, fetch, ask, miss_deadline) -> None:
    emulator.plan(Plan(after=10**6))
    with pytest.raises(errors.StillRunning):
        miss_deadline(engine, ask("runware", seed=1)).result(90)
    engine.ledger.update(engine.ledger.recent()[0].id, created=time.time() - 602)
    emulator.accepted[0].items[0].ready_at = 0
    fetch(ask("runware", seed=1))
    assert estimate(engine, "runware", {})["seconds"] is None
    fetch(ask("runware", seed=2))
    told = estimate(engine, "runware", {})
    assert told["jobs"] == 1 and told["seconds"] < 10


def test_a_job_first_sent_on_resume_reports_its_cost(emulator, make_engine, fetch, ask) -> None:
    request = ask("runware")
    make_engine().ledger.claim(request)
    result = fetch(request, by=make_engine())
    assert result.paid_now and deliver(result, "error").cost_usd == result.cost_usd > 0


@SERVICES
def test_only_the_price_does_not_hide_a_wrong_key(service, emulator, fetch, ask, monkeypatch) -> None:
    monkeypatch.setenv(f"{service.upper()}_API_KEY", "a-wrong-key-1234")
    with pytest.raises(errors.Refused, match="did not accept the API key of the profile 'default'"):
        fetch(ask(service, price_check="only show the price"))


def test_a_newcomer_is_protected() -> None:
    assert Limits() == Limits(0.0, 1.0, 4)


def test_what_may_have_been_billed_stays_so(emulator, engine, fetch, ask) -> None:
    """The one thing nobody can know: said each time, never sent again by itself."""
    emulator.script("bfl.submit", Turn(cut=0))
    for _ in range(2):
        with pytest.raises(errors.MaybeBilled, match="set 'take' to 1"):
            fetch(ask("bfl"))
    assert engine.ledger.recent()[0].state == UNKNOWN and len(emulator.accepted) == 1
    done, _ = wait([engine.launch(lambda: ask("bfl", take=1))], 20)
    assert len(done) == 1 and len(emulator.accepted) == 2
