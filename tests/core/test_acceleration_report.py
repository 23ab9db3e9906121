"""What a run says of itself: the line, the data, the chart, and the text of a settings value."""

from __future__ import annotations

import json

import pytest
import torch
from kleinod_pure.acceleration import chart, presets
from kleinod_pure.acceleration.policies.dual_block import DualBlock
from kleinod_pure.acceleration.policies.first_block import FirstBlock
from kleinod_pure.acceleration.policies.forecast import plan_usual_run
from kleinod_pure.acceleration.policies.registry import list_wanted
from kleinod_pure.acceleration.policies.tea import Tea
from kleinod_pure.acceleration.report import (
    COMPUTED,
    HALF,
    REUSED,
    STEP_KINDS,
    RunReport,
    StepRecord,
    join_reports,
    summarise_runs,
)
from kleinod_pure.acceleration.settings import choose_acceleration, describe, make_acceleration
from kleinod_pure.base.fields import UNSET
from kleinod_pure.base.values import HIGHER_REUSES_MORE, LOWER_REUSES_MORE, Acceleration
from PIL import Image, ImageColor

WORK = {COMPUTED: 1.0, REUSED: 0.0, HALF: 0.5}


def make(pattern: str, errors: dict[int, float] | None = None, **fields: object) -> RunReport:
    """A run with these kinds of steps, sigma falling evenly."""
    records = [
        StepRecord(i, 1 - i / len(pattern), kind, WORK[kind], (errors or {}).get(i))
        for i, kind in enumerate(pattern)
    ]
    return RunReport("forecast", len(pattern), records, **fields)


def lines(text: str) -> dict[str, str]:
    return {line[:13].strip(): line[13:] for line in text.splitlines()}


# --- the line and the data


def test_the_line_says_what_happened() -> None:
    run = make("CCCCRRCRCC", {3: 0.02, 6: 0.1234, 8: 0.05}, notes=["a note"])
    assert run.line() == (
        "forecast: CCCCRRCRCC  7 of 10 steps computed, about 1.43x faster, largest forecast error 12.3%; "
        "a note"
    )


def test_a_solver_with_two_calls_a_step_has_calls_not_steps() -> None:
    heun = make("C" * 19)
    heun.steps = 10
    assert "19 of 19 model calls computed" in heun.line()


def test_half_steps_count_as_half_the_work() -> None:
    run = make("CCHHCR")
    assert (run.computed, run.speed) == (5, pytest.approx(6 / 4))


def test_only_errors_behind_reused_steps_count() -> None:
    """Elsewhere an error belongs to a forecast that nobody used."""
    assert make("CCCRCC", {1: 0.9, 2: 0.8, 4: 0.1, 5: 0.7}).largest_error == 0.1
    assert make("CCCC", {1: 0.9, 2: 0.8}).largest_error is None


def test_the_data_is_json_and_complete() -> None:
    run = make("CCRC", {3: 0.25}, threshold=0.5)
    data = json.loads(json.dumps(run.data()))
    assert (data["pattern"], data["computed"], data["calls"], data["threshold"]) == ("CCRC", 3, 4, 0.5)
    assert [record["sigma"] for record in data["records"]] == [1, 0.75, 0.5, 0.25]
    assert [record["error"] for record in data["records"]] == [None, None, None, 0.25]


def test_runs_that_skipped_the_same_are_one_line_with_the_worst_error() -> None:
    runs = [make("CCRC", {3: error}) for error in (0.1, 0.4, 0.2)]
    (line,) = summarise_runs(runs, ["seed 1", "seed 2", "seed 3"])
    assert "largest forecast error 40.0%" in line and line.endswith("(all 3 alike)")
    different = summarise_runs([*runs[:2], make("CCCC")], ["seed 1", "seed 2", "seed 3"])
    assert [line.partition(":")[0] for line in different] == ["seed 1", "seed 2", "seed 3"]
    assert join_reports([]).startswith("no acceleration")
    assert join_reports([runs[0], make("CRRC")]).splitlines()[1].startswith("run 2: forecast: CRRC")


# --- the chart


def colours_of(picture: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in picture.getcolors(1 << 20)}


def bar_colour(picture: Image.Image, i: int, count: int) -> tuple[int, int, int]:
    """The colour inside the bar of step `i`, just above its foot."""
    x = chart.LEFT + (i + 0.5) * (chart.RIGHT - chart.LEFT) / count
    for y in range(chart.SIZE[1] - 1, chart.TOP, -1):
        pixel = picture.getpixel((round(x), y))
        if pixel in {ImageColor.getrgb(kind.fill) for kind in STEP_KINDS.values()}:
            return pixel
    raise AssertionError(f"no bar for step {i}")


def test_bars_are_coloured_by_what_was_done() -> None:
    pattern = "CCCCRRCHRC"
    picture = chart.draw_chart([make(pattern, {9: 0.2})])
    assert picture.size == chart.SIZE
    for i, kind in enumerate(pattern):
        assert bar_colour(picture, i, len(pattern)) == ImageColor.getrgb(STEP_KINDS[kind].fill), f"step {i}"


def test_bars_are_as_high_as_the_noise() -> None:
    run = make("C" * 10)
    picture = chart.draw_chart([run])
    gold = ImageColor.getrgb(STEP_KINDS[COMPUTED].colour)

    def height(i: int) -> int:
        x = round(chart.LEFT + (i + 0.5) * (chart.RIGHT - chart.LEFT) / 10)
        return sum(picture.getpixel((x, y)) == gold for y in range(chart.TOP - 8, chart.SIZE[1]))

    heights = [height(i) for i in range(10)]
    for i, record in enumerate(run.records):
        assert heights[i] == pytest.approx(record.sigma * heights[0], abs=3)


def test_larger_errors_are_higher_bars() -> None:
    picture = chart.draw_chart([make("CCRC", {1: 0.1, 3: 0.2})])
    red = ImageColor.getrgb(chart.ERROR)

    def height(i: int) -> int:
        x = round(chart.LEFT + (i + 0.5) * (chart.RIGHT - chart.LEFT) / 4)
        return sum(picture.getpixel((x, y)) == red for y in range(chart.SIZE[1]))

    assert height(3) == pytest.approx(chart.ERRORS_HEIGHT, abs=3)
    assert height(1) == pytest.approx(height(3) / 2, abs=3)
    assert height(0) == height(2) == 0


@pytest.mark.parametrize("steps", [1, 2, 8, 50, 99])
def test_any_number_of_steps_stays_inside(steps: int) -> None:
    picture = chart.draw_chart([make("C" * steps)])
    border = [picture.getpixel((x, y)) for x in (0, chart.SIZE[0] - 1) for y in range(chart.SIZE[1])]
    assert set(border) == {ImageColor.getrgb(chart.PAPER)}
    assert bar_colour(picture, steps - 1, steps) == ImageColor.getrgb(STEP_KINDS[COMPUTED].colour)


def test_pictures_that_differ_get_rows_of_their_own() -> None:
    alike = chart.draw_chart([make("CCRC"), make("CCRC")], ["seed 1", "seed 2"])
    differ = chart.draw_chart([make("CCRC"), make("CCCC")], ["seed 1", "seed 2"])
    gold = ImageColor.getrgb(STEP_KINDS[COMPUTED].colour)
    x = round(chart.LEFT + 2.5 * (chart.RIGHT - chart.LEFT) / 4)  # the step only one of them computed

    def has_gold(picture: Image.Image) -> bool:
        return any(picture.getpixel((x, y)) == gold for y in range(chart.SIZE[1]))

    assert not has_gold(alike) and has_gold(differ)


def test_twenty_pictures_and_long_notes_fit() -> None:
    patterns = ["CCC" + "R" * (i % 5) + "C" * (25 - i % 5) for i in range(20)]
    runs = [make(pattern, notes=["many words " * 40]) for pattern in patterns]
    picture = chart.draw_chart(runs, [f"seed {2**32 - i}" for i in range(1, 21)])
    assert picture.size == chart.SIZE
    assert {picture.getpixel((x, chart.SIZE[1] - 1)) for x in range(chart.SIZE[0])} == {
        ImageColor.getrgb(chart.PAPER)
    }


def test_nothing_sampled_is_a_sentence() -> None:
    empty = chart.draw_chart([])
    assert colours_of(empty) & {ImageColor.getrgb(chart.TEXT)}
    assert ImageColor.getrgb(STEP_KINDS[COMPUTED].colour) not in colours_of(empty)


def test_the_image_is_the_picture() -> None:
    runs = [make("CCRC", {3: 0.1})]
    image = chart.chart_image(runs)
    assert image.shape == (1, chart.SIZE[1], chart.SIZE[0], 3) and image.dtype == torch.float32
    picture = chart.draw_chart(runs)
    at = (chart.LEFT + 40, 300)
    expected = torch.tensor(picture.getpixel(at)) / 255
    torch.testing.assert_close(image[0, at[1], at[0]], expected)


@pytest.mark.parametrize(
    ("share", "text"), [(0.0312, "3.1%"), (0.3, "30%"), (0.025, "2.5%"), (0.004, "0.4%"), (0.0, "0%")]
)
def test_percentages_are_short(share: float, text: str) -> None:
    assert chart.percent(share) == text


# --- settings


def test_minus_one_is_not_set() -> None:
    value = make_acceleration(acceleration="low", cache_start_step=UNSET, cache_end_step_percentage=90)
    assert (value.cache_start_step, value.cache_end_step_percentage) == (None, 90)
    assert make_acceleration(cache_start_step=0).cache_start_step == 0
    with pytest.raises(ValueError, match="cacheEndStep is 0, but must be 1 or more"):
        make_acceleration(cache_end_step=0)


def test_settings_win_over_the_preset() -> None:
    mine = Acceleration(fb_cache=True)
    assert choose_acceleration("low", mine) is mine
    assert choose_acceleration("low", None) == Acceleration("low")
    assert not list_wanted(choose_acceleration("none", None))


@pytest.mark.parametrize("level", ["low", "medium", "high"])
def test_the_text_shows_the_plan(level: str) -> None:
    said = lines(describe(Acceleration(level)))
    for steps in (28, 50):
        pattern = plan_usual_run(Acceleration(level), steps).pattern
        assert said[f"{steps} steps"].startswith(f"{pattern}, {pattern.count('C')} computed")
    assert f"{presets.SPEEDS[level]:.2f}x" in said["method"] and level in said["method"]
    assert json.loads(said["at Runware"]) == {"acceleration": level}


@pytest.mark.parametrize(
    ("cache", "fields", "name"),
    [
        (FirstBlock, {"fb_cache": True, "fb_cache_threshold": 0.3}, "fbCacheThreshold 0.3"),
        (DualBlock, {"db_cache": True, "db_cache_threshold": 0.3}, "dbCacheThreshold 0.3"),
        (Tea, {"tea_cache": True, "tea_cache_distance": 0.3}, "teaCacheDistance 0.3"),
    ],
)
def test_the_text_resolves_the_threshold(cache: type, fields: dict, name: str) -> None:
    resolved = []
    for meaning in (LOWER_REUSES_MORE, HIGHER_REUSES_MORE):
        value = Acceleration(**fields, threshold_meaning=meaning)
        said = lines(describe(value))["threshold"]
        assert said.startswith(name)
        assert f"internally {cache.resolve(value):.4f}" in said
        resolved.append(cache.resolve(value))
    assert (resolved[0] == resolved[1]) == ("tea_cache" in fields), "Tea's dial has one direction only"


def test_the_text_says_when_nothing_happens() -> None:
    off = lines(describe(Acceleration(db_cache=True, db_cache_threshold=0.0)))
    assert off["method"].startswith("none: every step is computed")
    assert "never reuses" in off["threshold"]
    late = lines(describe(Acceleration(cache_start_step=30)))
    assert late["28 steps"].startswith("cacheStartStep is 30, but this run has 28 steps")
    assert late["50 steps"].startswith("C" * 30)


def test_the_text_tells_of_guidance_and_references() -> None:
    said = lines(
        describe(
            Acceleration("none", guidance_interval=2, guidance_end_percentage=80, reference_cache="refresh")
        )
    )
    assert said["guidance"] == (
        "negative prompt on every 2nd computed step, no guidance after 80% of the steps"
    )
    assert said["references"].startswith("experimental: computed on every 4th computed step")
