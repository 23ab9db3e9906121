"""Interrupts, crashes, neighbours and repetitions: a job is paid for once, and its pictures are never
lost.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kleinod_pure.remote import errors
from kleinod_pure.remote.ledger import ACCEPTED, REFUSED, SAVED, SUBMITTING

from tests.emulator.book import HELD

from .conftest import wait_until

ROOT = Path(__file__).resolve().parents[2]


def posts(emulator, path: bytes = b"POST /v1") -> int:
    return sum(seen.startswith(path) and b"imageInference" in seen for seen in emulator.seen)


def test_the_ledger_row_is_on_disk_before_the_post(emulator, engine, fetch, runware_request) -> None:
    """The emulator reads the ledger file itself while it answers the submit."""
    import sqlite3

    seen = []
    accept = emulator.book.accept

    def look(service, job_id, *rest):
        with sqlite3.connect(f"file:{engine.keys.folder / 'ledger.sqlite'}?mode=ro", uri=True) as base:
            seen.append(base.execute("select state from jobs where id = ?", (job_id,)).fetchone())
        return accept(service, job_id, *rest)

    emulator.book.accept = look
    fetch(runware_request())
    assert seen == [(SUBMITTING,)]


def test_the_same_request_comes_from_disk_and_take_pays_again(
    emulator, make_engine, fetch, runware_request
) -> None:
    first = fetch(runware_request())
    second = fetch(runware_request())
    third = fetch(runware_request(), by=make_engine())
    assert (first.paid_now, second.paid_now, third.paid_now) == (True, False, False)
    assert (second.images[0].pixels == first.images[0].pixels).all()
    assert emulator.accepted == 1
    assert fetch(runware_request(take=1)).paid_now
    assert emulator.accepted == 2


def test_equal_requests_at_once_share_one_job(emulator, engine, runware_request, bfl_request) -> None:
    emulator.book.seconds_per_job = 0.2
    for request in (runware_request(), bfl_request()):
        handles = [engine.launch(lambda request=request: request) for _ in range(5)]
        assert not any(handle.exception(90) for handle in handles)
        assert len({handle.result().job.id for handle in handles}) == 1
    assert emulator.accepted == 2


@pytest.mark.parametrize("service", ["runware", "bfl"])
def test_leaving_a_sent_job_still_brings_it_home(
    service, emulator, engine, fetch, runware_request, bfl_request
) -> None:
    emulator.book.seconds_per_job = 0.2
    request = (runware_request if service == "runware" else bfl_request)()
    handle = engine.launch(lambda: request)
    wait_until(lambda: emulator.accepted == 1)
    handle.leave()
    wait_until(lambda: engine.ledger.recent()[0].state == SAVED)
    assert not fetch(request).paid_now
    assert emulator.accepted == 1


def test_leaving_before_the_request_is_sent_costs_nothing(emulator, engine, fetch, runware_request) -> None:
    ready = threading.Event()

    def prepare():
        ready.wait(5)
        return runware_request()

    handle = engine.launch(prepare)
    handle.leave()
    ready.set()
    with pytest.raises(errors.Abandoned, match="Nothing was billed"):
        handle.result(90)
    assert emulator.accepted == posts(emulator) == 0
    assert fetch(runware_request()).paid_now


def test_a_second_passenger_keeps_an_unsent_job_wanted(emulator, engine, runware_request) -> None:
    emulator.faults.order("refuse_429", 2)
    first, second = engine.launch(lambda: runware_request()), engine.launch(lambda: runware_request())
    wait_until(lambda: first.job is not None and second.job is not None)
    first.leave()
    assert second.result(90).images[0].pixels is not None
    assert emulator.accepted == 1


@pytest.mark.parametrize("service", ["runware", "bfl"])
def test_an_accepted_job_is_resumed_by_polling_alone(
    service, emulator, engine, make_engine, fetch, runware_request, bfl_request, miss_deadline
) -> None:
    request = (runware_request if service == "runware" else bfl_request)()
    emulator.faults.order("never_finish")
    with pytest.raises(errors.StillRunning):
        miss_deadline(engine, request).result(90)
    emulator.book.finish()
    before = posts(emulator)
    assert not fetch(request, by=make_engine()).paid_now
    assert posts(emulator) == before and emulator.accepted == 1


def test_a_row_without_an_answer_is_asked_for_before_it_is_sent(
    emulator, make_engine, fetch, runware_request
) -> None:
    """The crash came after the POST: the job exists at Runware, and only a poll is needed."""
    request = runware_request()
    job, fresh = make_engine().ledger.claim(request)
    assert fresh
    emulator.book.accept("runware", job.id, request.body | {"taskUUID": job.id}, 0.0019, [0])
    assert fetch(request, by=make_engine()).images[0].pixels is not None
    assert emulator.accepted == 1 and posts(emulator) == 0


def test_a_row_that_was_never_sent_is_sent_under_its_own_id(
    emulator, make_engine, fetch, runware_request
) -> None:
    request = runware_request()
    job, _ = make_engine().ledger.claim(request)
    outcome = fetch(request, by=make_engine())
    assert outcome.job.id == job.id
    assert list(emulator.book.jobs) == [job.id]


def test_a_bfl_row_without_an_answer_is_never_sent_again(emulator, make_engine, fetch, bfl_request) -> None:
    make_engine().ledger.claim(bfl_request())
    with pytest.raises(errors.MaybeBilled, match="set 'take' to 1"):
        fetch(bfl_request(), by=make_engine())
    assert emulator.accepted == 0


def test_recover_fetches_without_ever_posting(
    emulator, engine, runware_request, bfl_request, miss_deadline
) -> None:
    emulator.faults.order("never_finish", 2)
    for request in (runware_request(), bfl_request()):
        assert isinstance(miss_deadline(engine, request).exception(90), errors.StillRunning)
    emulator.book.finish()
    sent = emulator.book.submissions
    for job in engine.ledger.recent():
        assert job.state == ACCEPTED
        handle = engine.recover(job.id)
        assert handle.result(90).images[0].pixels is not None and not handle.result().paid_now
    assert emulator.book.submissions == sent == 2


def test_recover_says_why_there_is_nothing(emulator, engine, fetch, runware_request) -> None:
    emulator.faults.order("refuse_402")
    with pytest.raises(errors.Refused):
        fetch(runware_request())
    (job,) = engine.ledger.recent()
    assert job.state == REFUSED
    handle = engine.recover(job.id)
    with pytest.raises(errors.JobFailed, match="balance is empty"):
        handle.result(90)
    with pytest.raises(ValueError, match="has no job"):
        engine.recover("00000000-0000-4000-8000-000000000000").result(90)


def test_a_result_cleared_from_the_store_is_fetched_again(emulator, engine, fetch, runware_request) -> None:
    first = fetch(runware_request())
    for file in engine.store.folder.glob("*/*"):
        file.unlink()
    again = fetch(runware_request())
    assert (again.images[0].pixels == first.images[0].pixels).all()
    assert emulator.accepted == 1 and not again.paid_now


def test_jobs_run_side_by_side_within_the_limit(emulator, make_engine, runware_request) -> None:
    """Four are under way at once, though none ends; the others only once one has."""
    emulator.book.seconds_per_job = HELD
    engine = make_engine()
    handles = [
        engine.launch(lambda n=n: runware_request(f"fox {n}", delivery_method="sync")) for n in range(8)
    ]
    wait_until(lambda: emulator.accepted == 4)  # the default limit
    emulator.book.seconds_per_job = 0.05
    emulator.book.finish()
    assert not any(handle.exception(90) for handle in handles)
    assert emulator.accepted == 8 and emulator.most_active == 4


def test_spend_limits_stop_before_sending(emulator, engine, fetch, runware_request) -> None:
    """0.0019 each: two fit into a day of 0.004, the third does not; a run of its own limit is counted
    alone.
    """
    size = {"width": 1024, "height": 1024}
    fetch(runware_request("one", limits=(0.0, 0.004), **size))
    fetch(runware_request("two", limits=(0.0, 0.004), **size))
    with pytest.raises(errors.SpendLimit, match=r"limit of \$0.004 for today; \$0.0038 is spent"):
        fetch(runware_request("three", limits=(0.0, 0.004), **size))
    assert emulator.accepted == 2
    with pytest.raises(errors.SpendLimit, match="this run"):
        fetch(runware_request("three", limits=(0.004, 0.0), prompt_id="p", **size))
    fetch(runware_request("three", limits=(0.004, 0.0), prompt_id="another", **size))
    assert engine.ledger.spent_since(0) == pytest.approx(emulator.book.billed_usd)
    # What is already paid for is never held back.
    assert not fetch(runware_request("one", limits=(0.0, 0.004), **size)).paid_now


def test_limits_hold_for_jobs_sent_at_the_same_moment(emulator, engine, runware_request) -> None:
    size = {"width": 1024, "height": 1024}
    handles = [
        engine.launch(lambda n=n: runware_request(f"{n}", limits=(0.0, 0.0058), **size)) for n in range(8)
    ]
    assert sum(isinstance(handle.exception(90), errors.SpendLimit) for handle in handles) == 5
    assert emulator.accepted == 3


def test_the_price_alone_sends_nothing(emulator, engine, fetch, runware_request) -> None:
    outcome = fetch(runware_request(width=1024, height=1024, price_check="only show the price"))
    assert outcome.estimate_usd == 0.0019 and outcome.images == () and outcome.job is None
    assert emulator.accepted == 0 and engine.ledger.recent() == []
    shown = fetch(runware_request(width=1024, height=1024, price_check="show before the run"))
    assert shown.estimate_usd == 0.0019 and emulator.accepted == 1


CHILD = """
import sys, types
from pathlib import Path
root, folder, url, count = sys.argv[1:5]
pure = types.ModuleType("kleinod_pure"); pure.__path__ = [root + "/nodes"]; sys.modules["kleinod_pure"] = pure
from kleinod_pure.remote.engine import Engine
from kleinod_pure.remote.job_request import RunContext
from kleinod_pure.remote.retry import RetryPolicy
from kleinod_pure.remote.services import find_service
engine = Engine(Path(folder), policy=RetryPolicy(scale=0.02))
print("ready", flush=True)
sys.stdin.readline()
def request(n):
    inputs = {"positive_prompt": f"fox {n} of {folder}", "width": 128, "height": 128, "number_results": 2}
    return find_service("runware").make_request(RunContext(), inputs)
handles = [engine.launch(lambda n=n: request(n)) for n in range(int(count))]
for handle in handles:
    handle.exception()
print(sum(len(t.result().images) for t in handles), flush=True)
"""


class Child:
    """The engine in a process of its own, which a test may kill."""

    def __init__(self, folder: Path, url: str, jobs: int) -> None:
        command = [sys.executable, "-c", CHILD, str(ROOT), str(folder), url, str(jobs)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self) -> None:
        assert self.process.stdout.readline() == "ready\n"
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def test_killed_at_random_moments_nothing_is_paid_twice_and_nothing_is_lost(emulator, tmp_path) -> None:
    """Twenty runs of three jobs (two pictures each), each killed with SIGKILL at a random moment and then
    repeated.
    """
    draw = random.Random(5)
    emulator.book.seconds_per_job = 0.08
    emulator.book.seconds_between_items = 0.05
    jobs, moments = 3, 20
    stages: set[tuple[int, int]] = set()
    waiting = [Child(tmp_path / "0", emulator.url, jobs) for _ in range(2)]
    for round_ in range(moments):
        victim, heir = waiting
        before = emulator.accepted
        victim.start()
        progress, deadline = draw.randint(0, 3 * jobs - 1), time.monotonic() + 20

        def stage(folder: Path = tmp_path / str(round_) / "spool", before: int = before) -> tuple[int, int]:
            return emulator.accepted - before, len(list(folder.glob("*/*.png")))

        # Jobs sent plus pictures kept, so that the moments spread out on a slow machine as on a fast one.
        while sum(stage()) < progress and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 0.04))
        os.kill(victim.process.pid, signal.SIGKILL)
        victim.process.wait()
        stages.add(stage())
        # The next pair loads its modules while this heir finishes.
        waiting = [Child(tmp_path / str(round_ + 1), emulator.url, jobs) for _ in range(2)]
        heir.start()
        assert heir.process.stdout.readline().strip() == str(jobs * 2)
        heir.process.wait(60)
        assert emulator.accepted - before == jobs, f"kill number {round_}"
    assert len(stages) >= 4, f"the kills came at too few different stages: {stages}"
    for child in waiting:
        child.process.kill()
        child.process.wait()
