"""Whatever goes wrong on the wire: jobs accepted == jobs asked for, and every picture paid for arrives."""

from __future__ import annotations

import random

import numpy as np
import pytest
from kleinod_pure.remote import errors
from kleinod_pure.remote.results import deliver

from tests.emulator import pictures

# The job arrives within the very same call.
HEALED = [
    "accept_then_503",
    "accept_then_html",
    "accept_then_drop",
    "accept_then_reset",
    "refuse_503",
    "refuse_html",
    "refuse_429",
    "refuse_500_error",
    "drop_before_accept",
    "accept_huge_answer",
    "error_in_200",
    "poll_503",
    "poll_html",
    "poll_429",
    "poll_drop",
    "poll_empty",
    "poll_null",
    "poll_redirect",
    "duplicate_items",
    "poll_top_level_error",
    "expired",
    "oversize",
    "lying_length",
    "short_length",
    "bomb",
    "svg",
    "html_as_image",
    "download_503",
    "download_drop",
    "empty_image",
    "truncated_png",
    "rgba",
    "palette",
    "exif",
    "grey16",
    "other_size",
]
BFL_HEALED = [
    "refuse_429",
    "foreign_polling_url",
    "no_polling_url",
    "poll_503",
    "poll_html",
    "poll_429",
    "poll_drop",
    "poll_null",
    "poll_not_found",
    "poll_redirect",
    "unknown_status",
    "ready_without_sample",
    "expired",
    "oversize",
    "short_length",
    "bomb",
    "svg",
    "html_as_image",
    "download_503",
    "download_drop",
    "download_redirect",
    "empty_image",
    "truncated_png",
    "rgba",
    "foreign_sample",
]
# The answer to the POST is lost after BFL may have accepted: never sent again, and said so.
BFL_UNCLEAR = [
    "accept_then_503",
    "accept_then_html",
    "accept_then_drop",
    "accept_then_reset",
    "drop_before_accept",
    "refuse_503",
    "refuse_html",
    "refuse_500_error",
    "accept_huge_answer",
]
REFUSALS = {
    "refuse_401": "did not accept the API key",
    "refuse_402": "the balance is empty",
    "redirect": "redirect",
}


def expect_picture(outcome, fault: str = "") -> None:
    """The very pixels the emulator drew; coarser only where the fault is a coarser file."""
    pixels = outcome.images[0].pixels
    size = (272, 176) if fault == "other_size" else (256, 192)
    expected = pictures.draw_pattern("a fox", *size, 0).astype(np.float32) / 255
    assert pixels.dtype == np.float32 and pixels.shape == expected.shape
    if fault == "grey16":
        expected = np.repeat(expected @ np.float32([[0.299], [0.587], [0.114]]), 3, axis=2)
    mean_error = {"palette": 0.1, "exif": 0.02, "grey16": 0.003}.get(fault, 0.0)
    assert np.abs(pixels - expected).mean() <= mean_error


@pytest.mark.parametrize("fault", HEALED)
def test_runware_heals(fault, emulator, fetch, runware_request) -> None:
    emulator.faults.order(fault)
    outcome = fetch(runware_request())
    assert emulator.faults.struck[fault] == 1
    assert emulator.accepted == 1
    expect_picture(outcome, fault)
    assert emulator.traps == []


@pytest.mark.parametrize("fault", ["accept_then_503", "accept_then_drop", "status_error", "accept_slow_drip"])
def test_runware_sync_delivery_is_as_safe(fault, emulator, fetch, runware_request) -> None:
    emulator.faults.order(fault)
    if fault == "status_error":
        with pytest.raises(errors.JobFailed, match="The inference failed"):
            fetch(runware_request(delivery_method="sync"))
    else:
        expect_picture(fetch(runware_request(delivery_method="sync")))
    assert emulator.accepted == 1


@pytest.mark.parametrize("fault", BFL_HEALED)
def test_bfl_heals(fault, emulator, fetch, bfl_request) -> None:
    emulator.faults.order(fault)
    outcome = fetch(bfl_request())
    assert emulator.faults.struck[fault] == 1
    assert emulator.accepted == 1
    expect_picture(outcome, fault)
    assert emulator.traps == []


@pytest.mark.parametrize("fault", BFL_UNCLEAR)
def test_bfl_is_never_posted_twice(fault, emulator, fetch, bfl_request) -> None:
    emulator.faults.order(fault)
    with pytest.raises(errors.MaybeBilled, match="may have billed"):
        fetch(bfl_request())
    posts = sum(seen.startswith(b"POST") for seen in emulator.seen)
    with pytest.raises(errors.MaybeBilled, match="set 'take' to 1"):
        fetch(bfl_request())
    assert sum(seen.startswith(b"POST") for seen in emulator.seen) == posts == 1
    before = emulator.accepted
    expect_picture(fetch(bfl_request(take=1)))
    assert emulator.accepted == before + 1


@pytest.mark.parametrize("service", ["runware", "bfl"])
@pytest.mark.parametrize("fault", REFUSALS)
def test_a_refusal_costs_nothing_and_the_next_try_resumes(
    fault, service, emulator, engine, fetch, runware_request, bfl_request
) -> None:
    request = (runware_request if service == "runware" else bfl_request)()
    emulator.faults.order(fault)
    with pytest.raises(errors.Refused, match=REFUSALS[fault]) as caught:
        fetch(request)
    assert "Nothing was billed" in str(caught.value)
    assert emulator.accepted == 0 and emulator.traps == []
    assert engine.ledger.spent_since(0) == 0
    expect_picture(fetch(request))
    assert emulator.accepted == 1


def test_an_empty_account_says_what_to_do(emulator, fetch, runware_request, bfl_request) -> None:
    emulator.book.balance_usd = 0.0
    for title, request in (("Runware", runware_request()), ("BFL", bfl_request())):
        with pytest.raises(errors.Refused) as caught:
            fetch(request)
        assert str(caught.value).startswith(
            f"{title} says the balance is empty. Nothing was billed for this job. Top up"
        )
        assert "the job resumes" in str(caught.value)


@pytest.mark.parametrize("fault", ["bomb", "oversize", "html_as_image"])
def test_a_stubborn_bad_picture_is_refused_and_can_be_recovered(
    fault, emulator, engine, fetch, runware_request
) -> None:
    emulator.faults.order(fault, 3)
    with pytest.raises(errors.Unsafe, match=r"^Runware's picture cannot be used\. .* stays in the ledger"):
        fetch(runware_request())
    expect_picture(fetch(runware_request()))
    assert emulator.accepted == 1


def test_partial_success_is_success_with_a_warning(emulator, fetch, runware_request) -> None:
    emulator.faults.order("item_error")
    outcome = fetch(runware_request(number_results=3))
    delivery = deliver(outcome, "error", (256, 192))
    assert delivery.batches[0].shape == (2, 192, 256, 3)
    assert "1 of 3 pictures did not come" in delivery.warning
    assert emulator.accepted == 1


def test_items_that_appear_one_by_one_all_arrive(emulator, fetch, runware_request) -> None:
    emulator.book.seconds_between_items = 0.05
    outcome = fetch(runware_request(number_results=5))
    assert sorted(p.seed for p in outcome.images) == [0, 1, 2, 3, 4]
    assert emulator.accepted == 1


@pytest.mark.parametrize(("fault", "words"), [("status_error", "The inference failed")])
def test_a_failed_job_is_told_and_a_new_queue_is_a_new_job(
    fault, words, emulator, fetch, runware_request
) -> None:
    emulator.faults.order(fault)
    with pytest.raises(errors.JobFailed, match=words):
        fetch(runware_request())
    expect_picture(fetch(runware_request()))
    assert emulator.accepted == 2
    assert len({seen for seen in emulator.book.jobs}) == 2


def test_bfl_error_status_is_told(emulator, fetch, bfl_request) -> None:
    emulator.faults.order("failed_status")
    with pytest.raises(errors.JobFailed, match="The GPU caught a cold"):
        fetch(bfl_request())
    assert emulator.accepted == 1


@pytest.mark.parametrize(
    ("fault", "words"), [("request_moderated", "Violence"), ("content_moderated", "Nudity")]
)
def test_moderation_tells_its_reasons_and_is_not_paid_again(
    fault, words, emulator, fetch, bfl_request
) -> None:
    emulator.faults.order(fault)
    for _ in range(2):
        with pytest.raises(errors.Moderated, match=words):
            deliver(fetch(bfl_request()), "error")
    assert deliver(fetch(bfl_request()), "placeholder", (256, 192)).batches[0].shape == (1, 192, 256, 3)
    assert deliver(fetch(bfl_request()), "skip").batches == ()
    assert emulator.accepted == 1


def test_runware_moderation_follows_the_same_policy(emulator, fetch, runware_request) -> None:
    emulator.faults.order("safety_error")
    with pytest.raises(errors.Moderated, match="safety check"):
        deliver(fetch(runware_request()), "error")
    assert emulator.accepted == 1


def test_a_flagged_picture_is_delivered_unless_asked_otherwise(emulator, fetch, runware_request) -> None:
    emulator.faults.order("item_nsfw")
    outcome = fetch(runware_request(number_results=2, check_content=True))
    assert deliver(outcome, "error").batches[0].shape[0] == 2
    assert "not safe for work" in deliver(outcome, "error").warning
    assert deliver(outcome, "skip").batches[0].shape[0] == 1


def test_a_job_that_never_finishes_ends_at_the_deadline_and_stays_open(
    emulator, engine, fetch, runware_request, miss_deadline
) -> None:
    emulator.faults.order("never_finish")
    with pytest.raises(errors.StillRunning, match="queue again and the job is picked up"):
        miss_deadline(engine, runware_request()).result(90)
    emulator.book.finish()
    expect_picture(fetch(runware_request()))
    assert emulator.accepted == 1


def test_a_job_gone_from_the_poll_store_is_found_in_the_archive(emulator, fetch, runware_request) -> None:
    emulator.faults.order("forget")
    expect_picture(fetch(runware_request()))
    assert emulator.accepted == 1


@pytest.mark.parametrize("seed", range(12))
def test_random_sequences_of_faults(seed, emulator, make_engine, fetch, runware_request) -> None:
    """Three to six faults at once, then as many calls as it takes: one job, one bill, one picture."""
    draw = random.Random(seed)
    chosen = draw.sample([name for name in HEALED if name not in ("error_in_200",)], draw.randint(3, 6))
    for fault in chosen:
        emulator.faults.order(fault, draw.randint(1, 2))
    outcome = None
    for _ in range(6):
        try:
            outcome = fetch(runware_request(number_results=2), by=make_engine())
            break
        except errors.RemoteError:
            continue
    assert outcome is not None and len(outcome.images) == 2, chosen
    assert emulator.accepted == 1, chosen


@pytest.mark.parametrize("output_type", ["base64Data", "dataURI"])
def test_pictures_inside_the_answer(output_type, emulator, fetch, runware_request) -> None:
    expect_picture(fetch(runware_request(output_type=output_type)))


def test_a_wrong_size_is_delivered_whole_and_said(emulator, fetch, runware_request) -> None:
    emulator.faults.order("other_size")
    delivery = deliver(fetch(runware_request(number_results=2)), "error", (256, 192))
    assert sorted(batch.shape for batch in delivery.batches) == [(1, 176, 272, 3), (1, 192, 256, 3)]
    assert "272x176 came instead of 256x192" in delivery.warning


@pytest.mark.parametrize("first", ["runware", "bfl"])
def test_both_services_under_one_address_and_one_key(fetch, runware_request, bfl_request, first) -> None:
    """Each says its key in a header of its own, also where an emulator plays both."""
    makers = [runware_request, bfl_request] if first == "runware" else [bfl_request, runware_request]
    assert [len(fetch(make()).images) for make in makers] == [1, 1]
