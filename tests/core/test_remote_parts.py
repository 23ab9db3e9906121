"""Pictures, paces, gate, ledger and spool, each alone."""

from __future__ import annotations

import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kleinod_pure.remote import images
from kleinod_pure.remote.concurrency import ConcurrencyLimit
from kleinod_pure.remote.errors import SpendLimit, StillRunning, Unsafe
from kleinod_pure.remote.following import order_by_seed
from kleinod_pure.remote.job_request import JobRequest, ReceivedImage, RunContext
from kleinod_pure.remote.ledger import FAILED, REFUSED, SAVED, SUBMITTING, Item, Ledger, format_usd
from kleinod_pure.remote.limits import Limits, read_limits, write_limits
from kleinod_pure.remote.result_store import ResultStore
from kleinod_pure.remote.retry import Deadline, PollPace, RetryPolicy, read_retry_after
from PIL import Image, ImageFile

from tests.emulator import pictures


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_png_there_and_back_is_exact_to_a_byte_step(width, height, seed) -> None:
    frame = np.random.default_rng(seed).random((height, width, 3), np.float32)
    back = images.decode(images.encode(frame))
    assert back.shape == frame.shape and np.abs(back - frame).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("form", ["PNG", "JPG", "WEBP"])
def test_every_format_is_read_and_named(form) -> None:
    drawn = pictures.draw_pattern("x", 96, 64, 1)
    data = pictures.encode(drawn, form)
    assert images.sniff(data) == {"JPG": "JPEG"}.get(form, form)
    assert np.abs(images.decode(data) - drawn / 255).mean() < 0.02


def test_alpha_is_dropped_as_load_image_does() -> None:
    drawn = pictures.draw_pattern("x", 32, 32, 1)
    assert np.array_equal(
        images.decode(pictures.encode(drawn, "PNG", "rgba")), drawn.astype(np.float32) / 255
    )


def test_a_photo_on_its_side_is_turned_upright() -> None:
    drawn = pictures.draw_pattern("x", 96, 64, 1)
    turned = images.decode(pictures.encode(drawn, "PNG", "exif"))
    assert turned.shape == (64, 96, 3) and np.abs(turned - drawn / 255).mean() < 0.02


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg/>",
        b"<html>",
        b"GIF89a" + bytes(64),
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff" + bytes(100),
        b"%PDF-1.4",
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        pictures.bomb_png(),
        pictures.bomb_png(9000),
    ],
)
def test_anything_else_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    decoded: list[object] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded.append)
    with pytest.raises(Unsafe):
        images.decode(data)
    assert decoded == [], "its pixels were unpacked"


def test_pillows_own_limit_is_left_alone() -> None:
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(Unsafe, match="far larger"):
        images.decode(pictures.bomb_png())
    with pytest.raises(Unsafe, match="9000x9000"):
        images.decode(pictures.bomb_png(9000))
    assert before == Image.MAX_IMAGE_PIXELS


def test_each_frame_counts_and_nothing_is_squeezed() -> None:
    frames = images.split_frames([np.zeros((2, 8, 8, 3)), np.zeros((1, 4, 6, 4)), np.zeros((1, 5, 5, 1))])
    assert [f.shape for f in frames] == [(8, 8, 3), (8, 8, 3), (4, 6, 3), (5, 5, 3)]
    with pytest.raises(ValueError, match="not numbers"):
        images.split_frames(np.full((1, 4, 4, 3), np.nan))
    with pytest.raises(ValueError, match="shape"):
        images.split_frames(np.zeros((4, 4)))


def test_uploads_are_made_smaller_only_when_they_must() -> None:
    frame = np.zeros((300, 600, 3), np.float32)
    same = Image.open(io.BytesIO(images.encode(frame, max_pixels=180_000, longest_side=600)))
    assert same.size == (600, 300)
    smaller = Image.open(io.BytesIO(images.encode(frame, max_pixels=45_000)))
    assert smaller.size == (300, 150)
    assert Image.open(io.BytesIO(images.encode(frame, longest_side=200))).size == (200, 100)


def test_base64_in_both_dresses() -> None:
    png = images.encode(np.zeros((4, 4, 3), np.float32))
    assert images.from_base64(images.to_data_uri(png)) == png
    with pytest.raises(Unsafe, match="not base64"):
        images.from_base64("*" * 8)


def test_retry_after_in_both_forms_and_clamped() -> None:
    now = time.time()
    assert read_retry_after("7", now) == 7
    assert read_retry_after(formatdate(now + 30, usegmt=True), now) == pytest.approx(30, abs=1.5)
    assert [read_retry_after(bad, now) for bad in (None, "", "soon", "-5")] == [0, 0, 0, 0]
    assert RetryPolicy().retry(0, "99999") == 120
    assert max(RetryPolicy().backoff(n) for n in range(12)) <= 20
    assert RetryPolicy().backoff(3, lambda: 1.0) == 4.0


def test_polls_slow_down_to_the_documented_pace() -> None:
    waits = [RetryPolicy().poll(PollPace(1.0, 1.5, 8.0), n) for n in range(8)]
    assert waits[:3] == [1.0, 1.5, 2.25] and waits[-1] == 8.0
    assert RetryPolicy().poll(PollPace(0.5, 1.3, 5.0), 0) == 0.5
    assert RetryPolicy().poll(PollPace(0.5, 1.3, 5.0), 99) == 5.0


def test_waiting_ends_with_the_deadline() -> None:
    with pytest.raises(StillRunning):
        Deadline(0.02).wait(5)


def test_the_limit_holds_halves_and_recovers() -> None:
    limit, deadline = ConcurrencyLimit(4), Deadline(5)
    assert all(limit.enter(lambda: True, deadline) for _ in range(4))
    assert not limit.enter(lambda: False, deadline)
    with pytest.raises(StillRunning):
        limit.enter(lambda: True, Deadline(0.05))
    limit.slow_down()
    assert limit.limit == 2
    for _ in range(4):
        limit.leave()
    assert limit.limit == 3
    assert ConcurrencyLimit(99).limit == 24


@pytest.fixture
def ledger(tmp_path):
    book = Ledger(tmp_path)
    yield book
    book.close()


def claim(n: int = 0, run: str = "", limit: float = 0.0, **more) -> JobRequest:
    context = RunContext("1", run, Limits(limit, 0.0))
    return JobRequest("runware", "https://x", "imageInference", {"n": n}, context=context, **more)


def test_states_decide_what_a_second_claim_means(ledger) -> None:
    job, fresh = ledger.claim(claim())
    assert fresh and job.state == SUBMITTING
    assert ledger.claim(claim()) == (job, False)
    ledger.update(job.id, state=REFUSED)
    again, fresh = ledger.claim(claim())
    assert fresh and again.id == job.id
    ledger.update(job.id, state=FAILED)
    other, fresh = ledger.claim(claim())
    assert fresh and other.id != job.id and other.attempt == 1
    ledger.update(other.id, state=SAVED)
    assert not ledger.claim(claim())[1]
    assert ledger.claim(claim(take=1))[1]


def test_the_identity_of_a_request() -> None:
    base = claim().request_hash
    different = [
        claim(1),
        claim(profile="b"),
        JobRequest("bfl", "https://x", "imageInference", {"n": 0}),
        JobRequest("runware", "http://127.0.0.1:1", "imageInference", {"n": 0}),
    ]
    assert base not in {c.request_hash for c in different}
    assert claim(estimate_usd=1.0, run="z", limit=3.0).request_hash == base


def test_equal_claims_from_many_threads_are_sent_once(ledger) -> None:
    fresh = []
    threads = [threading.Thread(target=lambda: fresh.append(ledger.claim(claim())[1])) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(fresh) == 1


def test_the_book_is_the_account(ledger) -> None:
    a, _ = ledger.claim(claim(1, estimate_usd=0.5, run="run"))
    b, _ = ledger.claim(claim(2, estimate_usd=0.25, run="run"))
    ledger.update(a.id, cost_usd=0.4)
    assert ledger.spent_in_run("run") == pytest.approx(0.65)
    with pytest.raises(SpendLimit, match="0.65"):
        ledger.claim(claim(3, estimate_usd=0.36, run="run", limit=1.0))
    ledger.update(b.id, state=REFUSED)
    assert ledger.spent_since(0) == pytest.approx(0.4)
    assert ledger.claim(claim(3, estimate_usd=0.36, run="run", limit=1.0))[1]
    assert ledger.find(claim(4).request_hash) is None


def test_no_prompt_reaches_the_disk(tmp_path) -> None:
    book = Ledger(tmp_path)
    job, _ = book.claim(
        JobRequest("bfl", "b", "e", {"prompt": "a very secret fox", "input_image": "QUJD" * 40})
    )
    book.add_item(Item(job.id, "i", 0, "picture", 1, 0.1, False, "f", 8, 8))
    book.close()
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"secret fox" not in written and b"QUJDQUJD" not in written


def test_the_store_keeps_to_its_limit_delivered_first(tmp_path) -> None:
    store = ResultStore(tmp_path / "spool", limit=250)
    names = [store.keep(f"job-{n}", 0, bytes(100), "PNG") for n in range(4)]
    assert store.trim(lambda job_id: job_id in ("job-1", "job-3")) == 200
    assert [store.read(name) is None for name in names] == [False, True, False, True]


def test_store_trims_while_other_jobs_write(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "spool", limit=0)
    ended = threading.Event()

    def write(job_id: str) -> None:
        for position in range(200):
            assert store.keep(job_id, position, b"picture", "PNG") == f"{job_id}/{position}.png"

    def trim() -> int:
        freed = 0
        while not ended.is_set():
            freed += store.trim(lambda _: True)
        return freed

    with ThreadPoolExecutor(6) as pool:
        trimmers = [pool.submit(trim) for _ in range(3)]
        try:
            list(pool.map(write, ("job-1", "job-2", "job-3")))
        finally:
            ended.set()
        assert all(trimmer.result() >= 0 for trimmer in trimmers)
    store.trim(lambda _: True)
    assert not [file for file in store.folder.glob("*/*")]


def test_store_clears_what_a_killed_writer_left(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "spool")
    store.keep("job-1", 0, b"picture", "PNG")
    old, young = (store.folder / "job-1" / name for name in (".0.png-old", ".0.png-young"))
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (1, 1))
    assert store.trim(lambda _: True) == 0
    assert not old.exists() and young.exists() and store.read("job-1/0.png") == b"picture"


def test_limits_are_kept_and_checked(tmp_path) -> None:
    assert read_limits(tmp_path) == Limits(0.0, 1.0, 4)
    assert write_limits(tmp_path, {"day_usd": 2.5}).day_usd == 2.5
    assert write_limits(tmp_path, {"concurrency": 8}) == Limits(0.0, 2.5, 8)
    for bad in (
        {"day_usd": -1},
        {"day_usd": "1"},
        {"concurrency": 25},
        {"nonsense": 1},
        {"run_usd": True},
        [1],
        {"day_usd": float("nan")},
    ):
        with pytest.raises(ValueError):
            write_limits(tmp_path, bad)
    assert read_limits(tmp_path).day_usd == 2.5
    (tmp_path / "limits.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="Set them again"):
        read_limits(tmp_path)
    assert write_limits(tmp_path, {"day_usd": 3}) == read_limits(tmp_path) == Limits(0.0, 3, 4)


@pytest.mark.parametrize(
    ("usd", "text"),
    [(1, "$1.00"), (0.003, "$0.003"), (0.0019, "$0.0019"), (0, "$0.00"), (0.00001, "$0.00001")],
)
def test_amounts_are_written_with_all_their_digits(usd, text) -> None:
    assert format_usd(usd) == text


@pytest.mark.parametrize(
    ("seeds", "order"),
    [
        ([41, 40, 42], [40, 41, 42]),
        ([42, 40, "moderation"], [40, 42, "moderation"]),
        ([9, 3], [9, 3]),  # no run of numbers: a service with seeds of its own
        ([7, None], [7, None]),
        ([5, 5], [5, 5]),
    ],
)
def test_results_stand_in_the_order_of_their_seeds(seeds, order) -> None:
    def make(seed):
        return ReceivedImage(None, None, kind=seed) if isinstance(seed, str) else ReceivedImage(None, seed)

    arranged = order_by_seed(tuple(make(seed) for seed in seeds))
    assert [one.seed if one.kind == "picture" else one.kind for one in arranged] == order
