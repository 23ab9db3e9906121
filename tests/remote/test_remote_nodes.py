"""The nodes as ComfyUI calls them: asynchronous, interruptible, side by side; what they put out and say."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from comfy.model_management import InterruptProcessingException, interrupt_current_processing
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.utils import CurrentNodeContext
from kleinod.nodes.base import sockets
from kleinod.nodes.base.flux2 import MAX_SEED
from kleinod.nodes.references.nodes import KleinodReferences
from kleinod.nodes.remote import errors, job_list, session
from kleinod.nodes.remote.nodes import KleinodBFL, KleinodRecoverJob, KleinodRunware, KleinodRunwareOptions
from kleinod.nodes.remote.services.bfl import ENDPOINTS

from tests.emulator import Emulator, pictures
from tests.emulator.book import HELD
from tests.remote.stage import set_stage

CANARY = "canary-4f9d2c71ab-do-not-leak"
RUNWARE = {
    "positive_prompt": "a fox",
    "negative_prompt": "",
    "width": 256,
    "height": 192,
    "steps": 28,
    "cfg_scale": 3.5,
    "seed": 0,
    "number_results": 1,
}
BFL = {"prompt": "a fox", "width": 256, "height": 192, "seed": 0}


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """An emulator, and ComfyUI's user folder in a temporary place."""
    with set_stage(monkeypatch, tmp_path, CANARY) as running:
        for name in ("RUNWARE", "BFL"):
            monkeypatch.setenv(f"{name}_API_KEY", CANARY)
        yield running
        interrupt_current_processing(False)


async def execute(node, prompt_id: str = "run", **values):
    with CurrentNodeContext(prompt_id, "7"):
        clone = node.PREPARE_CLASS_CLONE({"hidden_inputs": {}})
        return await clone.execute(**values)


def run(node, **values):
    return asyncio.run(execute(node, **values)).args


def test_runware_gives_a_batch_seeds_cost_and_account(emulator) -> None:
    images, seeds, cost, info = run(KleinodRunware, **RUNWARE | {"number_results": 3, "seed": 5})
    assert len(images) == 1 and images[0].shape == (3, 192, 256, 3) and images[0].dtype == torch.float32
    assert np.array_equal(
        images[0][1].numpy(), pictures.draw_pattern("a fox", 256, 192, 6).astype(np.float32) / 255
    )
    assert seeds == [5, 6, 7] and cost == pytest.approx(emulator.book.billed_usd)
    account = json.loads(info)
    assert (
        account["sizes"] == [[256, 192]] * 3 and account["paid_now"] and len(set(account["image_ids"])) == 3
    )
    assert CANARY not in info and "a fox" not in info


def test_bfl_takes_images_and_gives_a_picture(emulator) -> None:
    frames = torch.rand(2, 64, 48, 3)
    images, seeds, cost, info = run(KleinodBFL, **BFL, input_image=frames, input_image_3=frames[:1])
    assert images[0].shape == (1, 192, 256, 3) and seeds == [0]
    (job,) = emulator.book.jobs.values()
    assert {"input_image", "input_image_2", "input_image_3"} <= set(job.request)
    assert cost == pytest.approx(0.017)


def test_mixed_sizes_come_as_a_list(emulator) -> None:
    emulator.faults.order("other_size")
    images, seeds, *_ = run(KleinodRunware, **RUNWARE | {"number_results": 3})
    assert sorted(tuple(image.shape) for image in images) == [
        (1, 176, 272, 3),
        (1, 192, 256, 3),
        (1, 192, 256, 3),
    ]


def test_two_nodes_run_side_by_side(emulator) -> None:
    """Neither job ends before both were accepted."""
    emulator.book.seconds_per_job = HELD

    async def both():
        nodes = asyncio.gather(execute(KleinodRunware, **RUNWARE), execute(KleinodBFL, **BFL))
        while emulator.accepted < 2 and not nodes.done():
            await asyncio.sleep(0.01)
        emulator.book.finish()
        return await nodes

    assert len(asyncio.run(both())) == 2


def test_work_goes_on_while_the_loop_is_blocked_by_local_sampling(emulator) -> None:
    """A local sampler blocks the loop of the prompt: the remote job is sent and fetched all the same."""

    async def beside_a_sampler():
        task = asyncio.create_task(execute(KleinodRunware, **RUNWARE))
        await asyncio.sleep(0)
        ends = time.monotonic() + 60
        while session.find_engine().ledger.recent(1, ["saved"]) == []:
            assert time.monotonic() < ends
            time.sleep(0.01)
        return await task

    assert asyncio.run(beside_a_sampler()).args[0][0].shape == (1, 192, 256, 3)


@pytest.mark.parametrize(("node", "values"), [(KleinodRunware, RUNWARE), (KleinodBFL, BFL)])
def test_an_interrupt_is_felt_at_once_and_the_next_run_is_free(node, values, emulator, monkeypatch) -> None:
    """At once: before the job gets any further, as it would not end by itself."""
    emulator.book.seconds_per_job = HELD

    async def interrupted() -> None:
        task = asyncio.create_task(execute(node, **values))
        while session.find_engine().ledger.recent(1, ["accepted"]) == [] and not task.done():
            await asyncio.sleep(0.01)
        interrupt_current_processing(True)
        with pytest.raises(InterruptProcessingException):
            await asyncio.wait_for(task, 60)

    said = []
    monkeypatch.setattr(session, "warn", lambda text, node_id: said.append(text))
    asyncio.run(interrupted())
    interrupt_current_processing(False)
    (sentence,) = said
    assert "has the job: it goes on and is paid" in sentence
    (job,) = job_list.list_jobs(session.find_engine())["jobs"]
    assert (job["state"], job["waited_for"]) == ("accepted", False)
    emulator.book.finish()
    assert run(node, **values)[2] == 0.0
    assert emulator.accepted == 1


def test_a_neighbours_failure_cancels_the_node_but_not_the_job(emulator) -> None:
    emulator.book.seconds_per_job = HELD

    async def beside_a_failing_node():
        pending = asyncio.create_task(execute(KleinodRunware, **RUNWARE))
        while emulator.accepted == 0 and not pending.done():
            await asyncio.sleep(0.01)
        raise ValueError("the neighbour")

    with pytest.raises(ValueError, match="neighbour"):
        asyncio.run(beside_a_failing_node())
    emulator.book.finish()
    assert run(KleinodRunware, **RUNWARE)[2] == 0.0
    assert emulator.accepted == 1


def test_wrong_settings_stop_before_anything_is_sent(emulator) -> None:
    with pytest.raises(ValueError, match="width is 250, but must be a multiple of 16: use 240 or 256"):
        run(KleinodRunware, **RUNWARE | {"width": 250})
    with pytest.raises(ValueError, match="5 pictures together"):
        run(KleinodRunware, **RUNWARE, images=torch.zeros(5, 16, 16, 3))
    weighed = KleinodReferences.execute(
        {"image_1": [torch.zeros(1, 64, 64, 3)]}, ["native"], [1.0], [1], ["white"], ["hide the rest"],
        weights=["0.5"],
    ).args[0]  # fmt: skip
    for node, values in ((KleinodRunware, RUNWARE), (KleinodBFL, BFL)):
        with pytest.raises(ValueError, match=r"weighs image 1 \(weight 0.5\), but .* knows neither"):
            run(node, **values, references=weighed)
    assert emulator.seen == []


def test_no_key_says_where_to_put_one(emulator, monkeypatch) -> None:
    monkeypatch.delenv("RUNWARE_API_KEY")
    with pytest.raises(errors.NoKey, match="Settings > Kleinod > API keys"):
        run(KleinodRunware, **RUNWARE)


def test_moderation_policies(emulator) -> None:
    emulator.faults.order("request_moderated")
    with pytest.raises(errors.Moderated, match="Violence"):
        run(KleinodBFL, **BFL)
    images, *_ = run(KleinodBFL, **BFL, moderation="placeholder")
    assert images[0].shape == (1, 192, 256, 3)
    images, seeds, cost, info = run(KleinodBFL, **BFL, moderation="skip")
    assert (
        isinstance(images[0], ExecutionBlocker)
        and json.loads(info)["not_delivered"][0]["kind"] == "moderation"
    )


def test_options_carry_the_profile_and_ask_the_price(emulator) -> None:
    (options,) = KleinodRunwareOptions.execute(price_check="only show the price", profile="default").args
    images, seeds, cost, info = run(
        KleinodRunware, **RUNWARE | {"width": 1024, "height": 1024}, options=options
    )
    assert isinstance(images[0], ExecutionBlocker) and cost == 0.0019
    assert emulator.accepted == 0
    (options,) = KleinodRunwareOptions.execute(profile="another").args
    with pytest.raises(errors.NoKey, match="profile 'another'"):
        run(KleinodRunware, **RUNWARE, options=options)


def test_recover_by_the_line_of_the_list(emulator) -> None:
    from kleinod.nodes.remote.job_list import list_choices

    first = run(KleinodRunware, **RUNWARE)
    (choice,) = list_choices(session.find_engine())
    assert "runware 256x192 saved" in choice
    assert KleinodRecoverJob.validate_inputs(job=choice) is True
    assert "pick a job" in KleinodRecoverJob.validate_inputs(job="newest")
    images, seeds, cost, _ = run(KleinodRecoverJob, job=choice)
    assert torch.equal(images[0], first[0][0]) and cost == 0.0 and emulator.accepted == 1


def test_spend_limits_of_the_settings_hold(emulator) -> None:
    from kleinod.nodes.remote.limits import write_limits

    write_limits(session.find_folder(), {"run_usd": 0.003})
    big = RUNWARE | {"width": 1024, "height": 1024}
    run(KleinodRunware, **big, prompt_id="a")
    with pytest.raises(errors.SpendLimit, match="Nothing was sent"):
        run(KleinodRunware, **big | {"seed": 1}, prompt_id="a")
    run(KleinodRunware, **big | {"seed": 1}, prompt_id="b")
    assert emulator.accepted == 2


def test_the_status_of_a_job_is_told(emulator, monkeypatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(session, "show", lambda words, node_id: told.append(words))
    emulator.book.seconds_per_job = 0.4
    run(KleinodRunware, **RUNWARE)
    assert any(words.startswith("Working") for words in told)
    assert told[-1].startswith("1 picture, $0.0005, ")


def test_ranges_and_defaults_are_those_of_the_documents() -> None:
    inputs = {entry.id: entry for entry in KleinodRunware.define_schema().inputs}
    for name, low, high, default in (
        ("width", 128, 2048, 1024),
        ("height", 128, 2048, 1024),
        ("steps", 1, 50, 28),
        ("cfg_scale", 1, 20, 3.5),
        ("number_results", 1, 20, 1),
        ("output_quality", 20, 99, 95),
        ("seed", 0, MAX_SEED, 0),
    ):
        assert (inputs[name].min, inputs[name].max, inputs[name].default) == (low, high, default), name
    assert inputs["width"].step == 16 and inputs["cfg_scale"].step == 0.01
    assert inputs["model"].default == "runware:400@5" and inputs["acceleration_level"].default == "high"
    wires = [
        entry.id for entry in KleinodRunware.define_schema().inputs if entry.io_type.startswith("KLEINOD_")
    ]
    assert wires == ["acceleration", "loras", "references", "face_refinement", "options"]
    assert sockets.RunwareOptions.io_type == "KLEINOD_RUNWARE_OPTIONS"
    inputs = {entry.id: entry for entry in KleinodBFL.define_schema().inputs}
    assert inputs["safety_tolerance"].default == 2 and inputs["safety_tolerance"].max == 5
    assert inputs["width"].default == 0 and list(inputs["endpoint"].options) == list(ENDPOINTS)
    for node in (KleinodRunware, KleinodBFL, KleinodRunwareOptions, KleinodRecoverJob):
        assert not [
            entry.id for entry in node.define_schema().inputs if "key" in entry.id or "secret" in entry.id
        ]
