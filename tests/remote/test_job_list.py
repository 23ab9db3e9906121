"""What the job panel is told: jobs, pictures, days, and nothing private."""

from __future__ import annotations

import contextlib
import io
import json
import time

import pytest
from kleinod_pure.remote import job_list
from kleinod_pure.remote.errors import RemoteError
from kleinod_pure.remote.estimate import estimate
from kleinod_pure.remote.job_request import RunContext, strip_request
from kleinod_pure.remote.services import find_service
from PIL import Image

from tests.emulator import Emulator
from tools.launch.server import find_free_port

FIELDS = {
    "positive_prompt": "a secret fox", "negative_prompt": "no hidden owl", "width": 384, "height": 128,
    "steps": 28, "cfg_scale": 3.5, "seed": 7, "number_results": 2, "model": "runware:400@5",
    "scheduler": "Default", "acceleration_level": "high", "true_cfg_scale": 0.0, "output_format": "PNG",
    "output_quality": 95, "check_content": False, "safety_mode": "none", "ttl": 0, "include_cost": True,
    "delivery_method": "async",
}  # fmt: skip


@pytest.fixture
def job(engine, fetch):
    from kleinod_pure.remote.limits import Limits

    return fetch(find_service("runware").make_request(RunContext("1", "p", Limits()), FIELDS)).job


def test_without_a_job_the_list_says_so(engine) -> None:
    (line,) = job_list.list_choices(engine)
    assert "no job" in line


def test_a_finished_job_with_its_pictures_and_the_day(engine, job) -> None:
    book = job_list.list_jobs(engine)
    (shown,) = book["jobs"]
    assert (shown["id"], shown["state"], shown["unfinished"]) == (job.id, "saved", False)
    sizes = [(p["position"], p["width"], p["height"]) for p in shown["pictures"]]
    assert sizes == [(0, 384, 128), (1, 384, 128)]
    assert shown["request"]["steps"] == 28 and shown["request"]["model"] == "runware:400@5"
    assert shown["choice"] == job_list.list_choices(engine)[0] and shown["choice"].endswith(job.id)
    today = time.strftime("%Y-%m-%d", time.localtime(job.created))
    assert book["spent_by_day"] == [{"day": today, "usd": pytest.approx(job.cost_usd)}]


def test_who_of_a_cluster_drew_a_picture_is_told(engine, job) -> None:
    item = engine.ledger.items(job.id)[1]
    engine.ledger.note_worker(job.id, item.item_id, "studio/gpu1/x")
    (shown,) = job_list.list_jobs(engine)["jobs"]
    assert [picture["worker"] for picture in shown["pictures"]] == ["", "studio/gpu1/x"]


def test_days_are_told_apart_and_a_refused_job_costs_nothing(engine, job) -> None:
    engine.ledger.update(job.id, created=job.created - 86400.0)
    days = job_list.list_jobs(engine)["spent_by_day"]
    assert days[0]["day"] == time.strftime("%Y-%m-%d", time.localtime(job.created - 86400))
    engine.ledger.update(job.id, state="refused")
    assert job_list.list_jobs(engine)["spent_by_day"] == []


def test_thumbnail_keeps_the_shape_and_picture_the_bytes(engine, job) -> None:
    small = Image.open(io.BytesIO(job_list.read_thumbnail(engine, job.id, 1)))
    assert (small.format, small.size) == ("WEBP", (192, 64))
    assert Image.open(io.BytesIO(job_list.read_picture(engine, job.id, 1))).size == (384, 128)


def test_pictures_that_are_not_there_are_a_sentence(engine, job) -> None:
    with pytest.raises(ValueError, match="no picture 9"):
        job_list.read_picture(engine, job.id, 9)
    with pytest.raises(ValueError, match="no picture 0"):
        job_list.read_picture(engine, "../../keys", 0)
    for file in engine.store.folder.glob("*/0.png"):
        file.unlink()
    with pytest.raises(ValueError, match="Recover"):
        job_list.read_thumbnail(engine, job.id, 0)


def test_nothing_private_is_told(engine, job) -> None:
    told = json.dumps(job_list.list_jobs(engine))
    assert "fox" not in told and "owl" not in told
    body = {
        "positivePrompt": "x", "inputs": {"referenceImages": ["x"]}, "input_image_3": "x", "steps": 4,
        "advancedFeatures": {"ultralytics": {"positivePrompt": "x", "strength": 0.3}}, "webhookURL": "x",
    }  # fmt: skip
    assert strip_request(body, find_service("runware").private | find_service("bfl").private) == {
        "steps": 4,
        "advancedFeatures": {"ultralytics": {"strength": 0.3}},
    }


def test_a_jobs_prompt_is_told_where_its_pictures_are_and_goes_with_them(engine, job) -> None:
    assert job_list.read_prompt(engine, job.id) == {"prompt": "a secret fox"}
    assert job_list.list_jobs(engine)["jobs"][0]["seed"] == 7
    engine.store.limit = 0
    engine.store.trim(lambda job_id: True)
    assert job_list.read_prompt(engine, job.id) == {"prompt": ""}
    with pytest.raises(ValueError, match="no job"):
        job_list.read_prompt(engine, "../../keys")


def test_what_never_left_was_refused_by_nobody(engine, emulator, fetch, monkeypatch) -> None:
    from kleinod_pure.remote.limits import Limits

    def ask():
        with contextlib.suppress(RemoteError):
            fetch(find_service("runware").make_request(RunContext("1", "p", Limits()), FIELDS))
        (shown,) = [job for job in job_list.list_jobs(engine)["jobs"] if job["state"] != "accepted"]
        return shown["state"], shown["unsent"]

    port = find_free_port()
    monkeypatch.setenv("KLEINOD_RUNWARE_URL", f"http://127.0.0.1:{port}")
    assert ask() == ("refused", True)
    with Emulator(port=port) as late:
        late.faults.order("refuse_402")
        assert ask() == ("refused", False)
        assert ask() == ("saved", False)


def test_the_estimate_is_what_the_job_is_booked_with(engine, job) -> None:
    fields = {"width": "384", "height": "128", "steps": "28", "number_results": "2"}
    told = estimate(engine, "runware", fields)
    assert told["usd"] == job.estimate_usd > 0
    assert told["jobs"] == 1 and 0 < told["seconds"] < 30
    assert estimate(engine, "bfl", {"width": "1024", "height": "1024"})["seconds"] is None
    more = [estimate(engine, name, {"references": "2"})["usd"] for name in ("runware", "bfl")]
    less = [estimate(engine, name, {"references": "1"})["usd"] for name in ("runware", "bfl")]
    assert all(two > one for two, one in zip(more, less, strict=True))


@pytest.mark.parametrize(
    ("service", "fields", "named"),
    [
        ("runware", {"width": "1000"}, "width"), ("runware", {"steps": "x"}, "steps"),
        ("bfl", {"endpoint": "flux-9"}, "endpoint"), ("bfl", {"references": "5"}, "input images"),
        ("midjourney", {}, "service"),
    ],
)  # fmt: skip
def test_the_estimate_names_what_would_be_refused(engine, service, fields, named) -> None:
    with pytest.raises(ValueError, match=named):
        estimate(engine, service, fields)
