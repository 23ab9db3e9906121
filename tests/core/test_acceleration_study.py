"""Likeness, the comparison's table and pictures, and what Klein Calibrate fits and saves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kleinod_pure.acceleration import calibration
from kleinod_pure.base.acceleration import SKIPPED, FittedTable
from kleinod_pure.base.values import Acceleration, Calibration
from kleinod_pure.study import comparison, fitting, metrics, plot, sheet
from kleinod_pure.study.fitting import Trace
from kleinod_pure.study.prompts import NANO_PROMPTS, PROMPTS, list_prompts


def picture(seed: int = 0, height: int = 48, width: int = 64) -> torch.Tensor:
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").movedim(1, -1)


def test_psnr_is_that_of_the_textbook() -> None:
    a = torch.zeros(2, 8, 8, 3)
    b = a.clone()
    b[0] += 0.1
    assert metrics.psnr(b, a).tolist() == pytest.approx([20.0, metrics.MAX_DECIBELS], abs=1e-4)


def test_ssim_knows_alike_shifted_and_flat_pictures() -> None:
    a = picture()
    assert float(metrics.ssim(a, a)) == pytest.approx(1.0)
    assert float(metrics.ssim(a, 1 - a)) < 0
    noisy = (a + 0.1 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    worse = (a + 0.3 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    assert 1 > float(metrics.ssim(noisy, a)) > float(metrics.ssim(worse, a)) > 0
    flat, brighter = torch.full((1, 16, 16, 3), 0.4), torch.full((1, 16, 16, 3), 0.6)
    wanted = (2 * 0.24 + 1e-4) / (0.16 + 0.36 + 1e-4)  # contrast and structure are 1, the light term is left
    assert float(metrics.ssim(brighter, flat)) == pytest.approx(wanted, abs=1e-5)


def test_ssim_takes_pictures_smaller_than_its_window() -> None:
    assert float(metrics.ssim(picture(1, 5, 7), picture(1, 5, 7))) == pytest.approx(1.0)


def test_each_picture_of_a_batch_is_judged_alone() -> None:
    both, wanted = torch.cat([picture(1), picture(2)]), torch.cat([picture(1), picture(3)])
    assert metrics.ssim(both, wanted)[1] == pytest.approx(float(metrics.ssim(picture(2), picture(3))))
    latent = torch.ones(2, 4, 2, 2)
    assert metrics.latent_error(latent * torch.tensor([1.1, 2.0]).reshape(2, 1, 1, 1), latent).tolist() == (
        pytest.approx([0.1, 1.0])
    )


def test_pictures_of_other_sizes_are_an_error() -> None:
    with pytest.raises(ValueError, match="different sizes"):
        metrics.psnr(picture(), picture(0, 32, 32))


def test_candidates_cost_what_the_presets_cost() -> None:
    candidates = comparison.list_candidates(28, own=Acceleration("high", guidance_interval=2))
    names = [candidate.name for candidate in candidates]
    assert names[:2] == ["every step", "your settings"] and len(set(names)) == len(names)
    fewer = [candidate.steps for candidate in candidates if candidate.family == comparison.FEWER]
    assert fewer == [16, 11, 9]
    assert [c.steps for c in candidates if c.family == comparison.FAST] == [14, 9]
    ours = [c.name for c in candidates if c.family == comparison.OURS]
    assert ours == ["low", "medium", "high", "highest"]
    with pytest.raises(ValueError, match="nothing to compare"):
        comparison.list_candidates(28, False, False, False, False)


def test_at_strong_guidance_levels_that_are_one_run_run_once() -> None:
    candidates = comparison.list_candidates(28, guidance=7.0)
    assert [c.name for c in candidates if c.family == comparison.OURS] == ["low", "medium, high, highest"]
    assert [c.steps for c in candidates if c.family == comparison.FEWER] == [16]


def test_what_is_posted_holds_errors_and_notes_and_no_more() -> None:
    made = [
        outcomes()[0],
        replace(outcomes()[1], errors=(0.0123456, 0.02), notes=("mask: rule",)),
    ]
    told = json.loads(comparison.data(made, {"steps": 28}, {"device": "cpu"}))
    assert told["runs"][1]["errors"] == [0.0123, 0.02] and told["runs"][1]["notes"] == ["mask: rule"]
    assert "errors" not in told["runs"][0] and set(told) == {"compare", "request", "machine", "runs"}


def outcomes() -> list[comparison.Outcome]:
    made = []
    for i, candidate in enumerate(comparison.list_candidates(28)):
        image = (picture() + 0.03 * i).clamp(0, 1)
        likeness = float(metrics.psnr(image, picture())), float(metrics.ssim(image, picture()))
        made.append(comparison.Outcome(candidate, image, 2.0 / (1 + i), 1 / (1 + i), *likeness, "C" * 28))
    return made


def test_the_table_tells_time_work_and_likeness() -> None:
    lines = comparison.format_table(outcomes()).splitlines()
    assert len(lines) == 1 + len(outcomes())
    assert lines[1].split()[:4] == ["every", "step", "2.00", "s"] and "dB" not in lines[1]
    assert lines[2].startswith("low") and "2.00x" in lines[2] and "30.5 dB" in lines[2]


def test_the_headline_names_the_nearest_of_the_others_and_the_one_that_did_least() -> None:
    first, nearest, fastest = comparison.headline(outcomes()).splitlines()
    assert first == f"{len(outcomes())} pictures of one seed"
    assert nearest.startswith("nearest: low, 30.5 dB") and fastest.startswith("fastest: EasyCache 0.2, ")
    assert len(comparison.headline(outcomes()[:2]).splitlines()) == 2, "one and the same is named once"


def test_the_sheet_shows_every_picture_and_where_it_differs() -> None:
    made = outcomes()
    with_differences, without = sheet.draw_sheet(made), sheet.draw_sheet(made, False)
    assert with_differences.width == without.width and with_differences.height > without.height
    image = sheet.sheet_image(made)
    assert image.shape == (1, with_differences.height, with_differences.width, 3)
    # The first card: its picture in its own colours, and under it black, since it differs from nothing.
    at = sheet.GAP + sheet.PADDING
    shown = image[0, at, at + 2, :]
    torch.testing.assert_close(shown, made[0].image[0, 0, 0], atol=0.03, rtol=0)
    height = sheet._fit(made[0].image)[1]
    below = at + height + sheet.PADDING
    assert float(image[0, below + 4 : below + 60, at + 4 : at + 60].max()) == 0
    second = at + sheet.CELL + sheet.GAP
    assert float(image[0, below + 4 : below + 60, second + 4 : second + 60].mean()) > 0.2


def test_the_plot_draws_any_number_of_points() -> None:
    for points in ([], comparison.plot_points(outcomes()), [plot.Point(1.0, 40.0, "one")]):
        assert plot.draw_plot(points, "title", "caption", "dB", "x").size == plot.SIZE
    empty = plot.draw_plot([], "title", "caption", "dB", "x")
    assert plot.draw_plot(comparison.plot_points(outcomes()), "title", "caption", "dB", "x") != empty


def test_the_curve_is_found_again() -> None:
    signals = [0.02 * i for i in range(1, 12)]
    changes = [3 * s**3 - 0.5 * s**2 + 2 * s for s in signals]
    coefficients, limit, explained = fitting.fit_curve([None, *signals], [None, *changes])
    assert coefficients == pytest.approx((3, -0.5, 2, 0), abs=1e-6)
    assert limit == pytest.approx(0.22) and explained == pytest.approx(1.0)
    assert fitting.fit_curve([None] * 20, [None] * 20)[0] == ()


def test_a_trace_tells_changes_from_step_to_step() -> None:
    trace, x = Trace(), torch.ones(1, 2, 2, 2)
    for sigma, scale in ((1.0, 1.0), (0.6, 1.5), (0.3, 0.75)):
        trace.add(sigma, x, scale * x, None)
    assert trace.change == [None, pytest.approx(0.5), pytest.approx(0.5)]
    assert len(trace.path) == len(trace.velocities) == 3


def table(error: float, rule: float) -> FittedTable:
    levels = (1.0, 0.5, 0.0)
    return FittedTable(
        SKIPPED, "0" * 16, 4.0, levels, (0,), (1.0, 0.0), (((1.0,),),), (error, error / 2), (rule, rule / 2)
    )


def test_the_report_says_what_is_used_and_how_far_off_it_is() -> None:
    better, worse = table(0.01, 0.02), table(0.02, 0.01)
    assert better.wins and not worse.wins and better.gain == pytest.approx(6.02, abs=0.01)
    text = fitting.describe("mine", 4, "2 steps, guidance 4", [better, worse], 0.2, ["A note."])
    lines = text.splitlines()
    assert lines[0] == "Saved as 'mine', from 4 prompts, 2 steps, guidance 4." and lines[-1] == "A note."
    assert "0.8% off (worst 1.0%)" in lines[1] and "+6.0 dB, the fit is used" in lines[1]
    assert "the rule stays" in lines[2] and "as a guide here it is weak" in text
    assert "used by itself" not in fitting.describe("mine", 4, "", [worse], 0.2, [])


def test_prompts_are_lines_or_the_nodes_own() -> None:
    assert list_prompts("", ("a", "b", "c"), 2) == ["a", "b"]
    assert list_prompts(" one \n\ntwo\nthree", ("a",), 2) == ["one", "two", "three"]
    assert list_prompts("one\ntwo", ("a",), 4) == ["one", "two", "one", "two"]
    for own in (PROMPTS, NANO_PROMPTS):
        assert len(set(own)) == len(own) >= 8


def test_what_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such calibration"):
        calibration.load("lost", tmp_path)
    for text in ("{", "[]", json.dumps({"version": 9}), json.dumps({"version": 1, "tea_limit": 0.2})):
        (tmp_path / "broken.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match="broken"):
            calibration.load("broken", tmp_path)


@pytest.mark.parametrize("name", ["", "../up", "a/b", "C:x", ".hidden", "ends ", "ends.", "x" * 65])
def test_names_that_are_no_file_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name is"):
        calibration.save(Calibration(name), {}, tmp_path)


def test_too_few_steps_tell_nothing() -> None:
    with pytest.raises(ValueError, match="at least 8"):
        fitting.check_steps(7)
    fitting.check_steps(8)
