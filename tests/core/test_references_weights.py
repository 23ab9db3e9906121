"""What references weigh: the texts of the node, steps, places, and the numbers that attention gets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kleinod_pure.base.errors import InputError
from kleinod_pure.base.references import Reference
from kleinod_pure.references.prepare import Preparation, prepare_references
from kleinod_pure.references.report import describe
from kleinod_pure.references.weights import (
    Weight,
    fit_place,
    make_bias,
    parse_steps,
    parse_weights,
    weigh,
)


def prepare(count: int, places: dict | None = None, **given_: str):
    images = {f"image_{n}": torch.full((1, 64, 64, 3), n / 10) for n in range(1, count + 1)}
    return prepare_references(images, Preparation(**given_), None, places)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [1, 1, 1]),
        ("0.5", [0.5, 1, 1]),
        ("1, 0.5,2", [1, 0.5, 2]),
        (", 0", [1, 0, 1]),
        ("1;0.25\n2,", [1, 0.25, 2]),
    ],
)
def test_weights_are_read_as_they_are_written(text: str, expected: list[float]) -> None:
    assert parse_weights(text, 3) == expected
    assert [item.weight for item in prepare(3, weights=text).items] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [(0, 1), (0, 1)]),
        ("0-60", [(0, 0.6), (0, 1)]),
        ("0-60%, 40 - 100", [(0, 0.6), (0.4, 1)]),
        (",12.5%-50%", [(0, 1), (0.125, 0.5)]),
    ],
)
def test_steps_are_read_as_they_are_written(text: str, expected: list[tuple[float, float]]) -> None:
    assert parse_steps(text, 2) == expected
    assert [(item.start, item.end) for item in prepare(2, steps=text).items] == expected


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"weights": "strong"}, "weights says 'strong' for image 1"),
        ({"weights": "1,1,1"}, "weights names 3 images, and there are 2"),
        ({"weights": "2.5"}, "weights holds 2.5"),
        ({"weights": "-1"}, "weights holds -1"),
        ({"weights": "nan"}, "weights holds nan"),
        ({"steps": "60"}, "steps says '60' for image 1"),
        ({"steps": "60-20"}, "steps holds 60-20"),
        ({"steps": "0-120"}, "steps holds 0-120"),
        ({"steps": "0-1,0-2,0-3"}, "steps names 3 images"),
    ],
)
def test_what_cannot_be_is_said(given_: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        prepare(2, **given_)


def test_a_place_belongs_to_an_image() -> None:
    mask = torch.ones(1, 8, 8)
    first, second = prepare(2, {"place_2": mask}).items
    assert first.place is None and torch.equal(second.place, mask)
    assert prepare(1, {"place_1": torch.zeros(1, 8, 8)}).items[0].plain, "an empty mask means everywhere"
    with pytest.raises(InputError, match="place_2 is connected, but image_2 is not"):
        prepare(1, {"place_2": mask})
    with pytest.raises(InputError, match=r"The place of image_1 .*NaN"):
        prepare(1, {"place_1": torch.full((1, 8, 8), torch.nan)})


def test_the_info_says_what_does_not_count_in_full() -> None:
    half = torch.zeros(1, 8, 8)
    half[:, :, :4] = 1
    references = prepare(3, {"place_2": half}, weights="1, 0.5", steps=",,25-75")
    text = describe(references)
    assert "image 2: 64x64 used as it is; weight 0.5; on 50% of the picture" in text
    assert "image 3: 64x64 used as it is; steps 25-75%" in text
    assert references.weighing == "image 2 (weight 0.5, on 50% of the picture), image 3 (steps 25-75%)"
    assert prepare(2).weighing == ""


@given(st.integers(1, 60), st.floats(0, 0.99), st.floats(0.01, 1))
@settings(max_examples=60, deadline=None)
def test_every_range_acts_in_a_step_at_least(steps: int, start: float, length: float) -> None:
    end = min(1.0, start + length)
    item = Reference(
        torch.zeros(1, 16, 16, 3), (16, 16), (0, 0, 16, 16), (0, 0, 16, 16), "", (), 0.7, start, end
    )
    acts = [weigh(item, step, steps, None).everywhere == 0.7 for step in range(steps)]
    first, last = acts.index(True), steps - acts[::-1].index(True)
    assert acts == [first <= step < last for step in range(steps)], "one stretch"
    if round(end * steps) > round(start * steps):
        assert (first, last) == (round(start * steps), round(end * steps))


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | float) -> torch.Tensor:
    """Attention as in its paper (Vaswani et al. 2017, eq. 1), in 64 bits."""
    scores = q.double() @ k.double().transpose(-1, -2) / q.shape[-1] ** 0.5 + bias
    return scores.softmax(-1) @ v.double()


def draw(count: int, seed: int) -> torch.Tensor:
    return torch.randn(1, 2, count, 8, generator=torch.Generator().manual_seed(seed))


TEXT, CELLS, FIRST, SECOND = 3, 4, 5, 6
KEYS = TEXT + CELLS + FIRST + SECOND


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2), (2, 2), (0, 1), (1, 0), (0, 0)])
def test_a_weight_is_how_often_the_tokens_are_there(first: int, second: int) -> None:
    q, k, v = (draw(KEYS, seed) for seed in range(3))
    bias = make_bias([Weight(first), Weight(second)], [FIRST, SECOND], CELLS, KEYS, slice(0, KEYS), TEXT)
    assert bias.shape == (1, 1, 1, KEYS), "no more numbers than needed"
    parts = [1] * (TEXT + CELLS) + [first] * FIRST + [second] * SECOND
    often = torch.tensor([key for key, times in enumerate(parts) for _ in range(times)])
    expected = attend(q, k[:, :, often], v[:, :, often], 0.0)
    assert torch.allclose(attend(q, k, v, bias.double()), expected, atol=1e-9)


def test_a_place_acts_on_its_cells_alone() -> None:
    """Two pictures of a batch with other places; the rest reads it as the picture does on average."""
    place = torch.tensor([[1.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.0, 1.0]])
    bias = make_bias([Weight(1), Weight(1.5, place)], [FIRST, SECOND], CELLS, KEYS, slice(0, KEYS), TEXT)
    assert bias.shape == (2, 1, KEYS, KEYS)
    times = bias.exp()
    assert torch.all(times[..., :-SECOND] == 1)
    seen = times[:, 0, :, -SECOND:]
    assert torch.allclose(seen[:, TEXT : TEXT + CELLS], 1.5 * place[..., None].expand(-1, -1, SECOND))
    mean = 1.5 * place.mean(dim=1)[:, None, None]
    assert torch.allclose(seen[:, :TEXT], mean.expand(-1, TEXT, SECOND))
    assert torch.allclose(seen[:, TEXT + CELLS :], mean.expand(-1, FIRST + SECOND, SECOND))
    for first in range(0, KEYS, 4):  # the same in parts
        rows = slice(first, min(first + 4, KEYS))
        part = make_bias([Weight(1), Weight(1.5, place)], [FIRST, SECOND], CELLS, KEYS, rows, TEXT)
        assert torch.equal(part, bias[:, :, rows])


def test_a_mask_of_any_size_is_shared_out_over_the_cells() -> None:
    mask = torch.zeros(1, 30, 40)
    mask[:, :, :20] = 1
    place = fit_place(mask, 3, 4)
    assert place.shape == (1, 12)
    assert torch.equal(place.reshape(3, 4), torch.tensor([[1.0, 1.0, 0.0, 0.0]] * 3))
    assert torch.equal(fit_place(torch.tensor([[[0.25]]]), 2, 2), torch.full((1, 4), 0.25))
