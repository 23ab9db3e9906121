"""The report's lines, and the advice in it."""

from __future__ import annotations

import pytest
import torch
from kleinod_pure.base.acceleration import FAST, FittedTable
from kleinod_pure.base.pictures import check_image
from kleinod_pure.model.facts import facts_from_sizes, nano_facts
from kleinod_pure.sampling.advice import list_notes, list_warnings
from kleinod_pure.sampling.checks import check_conditioning, check_latent, check_vae
from kleinod_pure.sampling.report import Report
from kleinod_pure.sampling.request import SamplingRequest
from kleinod_pure.sampling.schedule import Schedule, compute_mu
from kleinod_pure.sampling.timing import Timing

BASE = facts_from_sizes(3072, 5, 20, 7680, choice="base")
DISTILLED = facts_from_sizes(3072, 5, 20, 7680, choice="distilled")
NANO = nano_facts(128, 0, 8, 192)


def make(request: SamplingRequest, from_picture: bool = False, **fields: object) -> Report:
    schedule = request.schedule(4096, from_picture)
    solver = request.recipe.solver_for(schedule.steps)
    return Report(
        request,
        (1024, 1024),
        from_picture=from_picture,
        schedule=schedule,
        solver=solver,
        timing=Timing(0.5, 15.0, 1.25),
        **fields,
    )


def lines(report: Report) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in report.text().splitlines():
        title, _, text = line.partition(" ")
        found.setdefault(title, []).append(text.strip())
    return found


def test_a_plain_run() -> None:
    text = lines(make(SamplingRequest(seed=5, results=3)))
    assert text["size"] == ["1024x1024"]
    assert text["results"] == ["3"]
    assert text["scheduler"] == ["Default -> euler, native sigmas (exact)"]
    assert text["steps"][0].startswith(
        "28 steps, 28 model calls a result, each with the prompt and with the neg"
    )
    assert text["mu"] == [f"{compute_mu('auto', 4096, 28):.4f} (auto)"]
    assert text["seeds"] == ["1: 5, 2: 6, 3: 7"]
    assert text["time"] == ["0.500 s a step, 15.00 s sampling, 1.25 s decoding"]
    sigmas = [float(word) for word in text["sigmas"][0].split()]
    assert len(sigmas) == 29 and sigmas[0] == 1 and sigmas[-1] == 0
    assert not {"strength", "note", "warning"} & set(text)


def test_what_strength_did() -> None:
    cut = SamplingRequest(strength=0.3, strength_mode="schedule")
    start = cut.schedule(4096, from_picture=True).start
    assert lines(make(cut, True))["strength"] == [
        f"0.3 (schedule): starts at sigma {start:.4f}, the last 8 of 28 steps"
    ]
    level = SamplingRequest(strength=0.3)
    assert lines(make(level, True))["strength"] == ["0.3 (noise-level): starts at sigma 0.3000"]


def test_two_calls_a_step_are_counted() -> None:
    text = lines(make(SamplingRequest(scheduler="Heun", guidance=1.0)))
    assert text["steps"] == ["28 steps, 55 model calls a result"]
    assert text["note"] == ["Two model calls a step: twice the time of Euler."]


def test_a_meaningless_name_is_told_in_one_sentence() -> None:
    text = lines(make(SamplingRequest(scheduler="EDMEulerScheduler")))
    assert text["scheduler"] == ["EDMEulerScheduler -> euler, native sigmas (not meaningful)"]
    assert text["note"] == [
        "EDM's scaling does not fit a flow model; Euler on the native sigmas runs instead."
    ]


def test_a_solver_that_had_to_give_way_is_told() -> None:
    text = lines(make(SamplingRequest(scheduler="UniPC", steps=1)))
    assert text["scheduler"] == ["UniPC -> euler, native sigmas (closest)"]
    assert text["note"] == ["uni_pc_bh2 cannot take so few steps; euler ran instead."]


def test_given_samplers_and_sigmas_are_called_so() -> None:
    request = SamplingRequest()
    foreign = Report(request, (512, 512), schedule=Schedule(torch.tensor([1.0, 0.5, 0.0]), None))
    text = lines(foreign)
    assert text["scheduler"] == ["the given sampler, the given sigmas"]
    assert text["steps"] == ["2 steps"]
    assert "mu" not in text


def test_what_was_accelerated_and_warned_of_is_said() -> None:
    report = make(SamplingRequest(), acceleration=("12 of 28 steps reused",)).with_warnings("Too hot.")
    text = lines(report)
    assert text["acceleration"] == ["12 of 28 steps reused"]
    assert text["warning"] == ["Too hot."]
    assert report.headline.splitlines() == [
        "1 picture, 1024x1024, 0.50 s a step, seed 0",
        "Warning: Too hot.",
    ]


def test_a_stopped_run_says_how_far_it_came_and_which_seeds() -> None:
    report = make(SamplingRequest(seed=5, results=3), asked=20)
    assert report.headline == "3 of 20: stopped, 1024x1024, 0.50 s a step, seeds 5 to 7"
    assert lines(report)["results"] == ["3 of 20: stopped, those that were done are handed on"]
    assert lines(report)["seeds"] == ["1: 5, 2: 6, 3: 7"]


def test_batches_are_counted() -> None:
    report = make(SamplingRequest(results=2), batch=3)
    assert lines(report)["results"] == ["2, 3 pictures each"]
    assert report.headline.startswith("6 pictures")


def test_guidance_on_a_distilled_model_is_warned_of() -> None:
    assert "Set it to 1" in list_warnings(SamplingRequest(guidance=4.0), DISTILLED)[0]
    assert list_warnings(SamplingRequest(guidance=1.0), DISTILLED) == []
    assert list_warnings(SamplingRequest(guidance=4.0), BASE) == []
    assert list_warnings(SamplingRequest(guidance=4.0), None) == []


@pytest.mark.parametrize(
    ("request_", "facts", "size", "words"),
    [
        (SamplingRequest(), BASE, (1024, 1024), []),
        (SamplingRequest(), None, (1024, 1024), []),
        (SamplingRequest(guidance=1.0), None, (1024, 1024), ["negative prompt is not used"]),
        (SamplingRequest(guidance=1.0), BASE, (1024, 1024), ["negative prompt is not used", "made for 4"]),
        (SamplingRequest(steps=4), BASE, (1024, 1024), ["4 steps are few"]),
        (SamplingRequest(steps=28), DISTILLED, (1024, 1024), ["done after 4 steps"]),
        (SamplingRequest(), BASE, (2048, 2048), ["capped above 1 MP"]),
        (SamplingRequest(mu="capped above 1 MP"), BASE, (2048, 2048), []),
        (SamplingRequest(scheduler="Kleinod Fast", guidance=5.0), None, (1024, 1024), ["At guidance 5 "]),
        (SamplingRequest(scheduler="Kleinod Fast", guidance=4.9), None, (1024, 1024), []),
        (SamplingRequest(scheduler="Kleinod Fast", steps=9), None, (1024, 1024), ["With 9 steps"]),
        (SamplingRequest(scheduler="Kleinod Fast", steps=10), None, (1024, 1024), []),
        (SamplingRequest(), NANO, (256, 128), []),
        (SamplingRequest(), NANO, (512, 512), ["klein-nano draws 128 to 256"]),
    ],
)
def test_notes(request_: SamplingRequest, facts: object, size: tuple[int, int], words: list[str]) -> None:
    notes = list_notes(request_, facts, size)
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True))


def test_what_kleinod_fast_goes_by_is_told_in_place_of_its_limits() -> None:
    levels, row = (1.0, 0.5, 0.0), ((1.0,),)
    table = FittedTable(FAST, "0" * 16, 7.0, levels, (0, 1), levels, (row, row), (0.1,), (0.2,))
    asked = SamplingRequest(scheduler=FAST, guidance=7.0)
    [note] = list_notes(asked, None, (1024, 1024), table=table)
    assert "fitted to this model: 2 steps of Kleinod Fast, guidance 7" in note


def test_checks_name_the_input() -> None:
    cond = [[torch.zeros(1, 8, 2560), {}]]
    with pytest.raises(ValueError, match="negative comes from the wrong text encoder .*klein. 4B"):
        check_conditioning("negative", cond, 7680)
    check_conditioning("negative", cond, None)
    with pytest.raises(ValueError, match="positive is empty"):
        check_conditioning("positive", [], 7680)
    with pytest.raises(ValueError, match="vae is empty"):
        check_vae(None)
    with pytest.raises(ValueError, match=r"image has the shape \[1, 64, 64, 5\]"):
        check_image(torch.zeros(1, 64, 64, 5))
    with pytest.raises(ValueError, match="latent has 16 channels, but .* 128"):
        check_latent(torch.zeros(1, 16, 8, 8))
    with pytest.raises(ValueError, match="still pictures"):
        check_latent(torch.zeros(1, 128, 2, 8, 8))
