"""What references cost, what is said about them, the contact sheet, and the shelf of encoded ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kleinod_pure.base.references import References
from kleinod_pure.references import cost, report
from kleinod_pure.references.latents import LatentCache
from kleinod_pure.references.prepare import Preparation, prepare_references
from kleinod_pure.references.sheet import ACCENT, GAP, PADDING, PAPER, WINDOW, draw_sheet


def references(*sizes: tuple[int, int], seeds: bool = True, **settings) -> References:
    images = {
        f"image_{n}": torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(n * seeds))
        for n, (width, height) in enumerate(sizes, start=1)
    }
    return prepare_references(images, Preparation(**settings))


@pytest.mark.parametrize(
    ("count", "factor"), [(0, 1.0), (1, 76.7 / 34.8), (2, 128.9 / 34.8), (4, 264.2 / 34.8)]
)
def test_step_factor_of_klein_4b(count: int, factor: float) -> None:
    """Against operations counted over the whole network, block by block."""
    assert cost.step_factor(4096, 4096 * count) == pytest.approx(factor, rel=0.005)


def test_memory_is_comfyuis_estimate() -> None:
    """1198 MiB for 4096 tokens of one branch of klein 4B."""
    assert cost.extra_mebibytes(4096, branches=1) == pytest.approx(1198.4, abs=0.1)


def test_info_tells_sizes_cost_and_what_to_do() -> None:
    text = report.describe(references((512, 512), (500, 300)))
    assert "image 1: 512x512 used as it is" in text
    assert "image 2: 500x300 used as 496x288" in text and "% cut off" in text
    assert f"{32 * 32 + 31 * 18:,} reference tokens beside 1,024" in text
    assert "width and height: 512x512 (the size of image 1)" in text
    assert "Warning" not in text


def test_warnings() -> None:
    assert "5 references" in report.headline(references(*[(64 + 16 * n, 160) for n in range(5)]))
    assert "image 2 is the same as image 1" in report.describe(
        references((160, 160), (160, 160), seeds=False)
    )
    assert "Klein Sampler makes pictures up to 2048" in report.describe(
        references((2064, 272), size="native")
    )
    assert "from 128 pixels on" in report.describe(references((64, 160)))


@pytest.mark.parametrize(
    ("prompt", "count", "expected"),
    [
        ("image 1 next to image 2", 2, []),
        ("Image 3 and picture #4, images 1", 2, [3, 4]),
        ("an image of 3 cats, image2vec, reimage 9", 1, []),
        ("image 0", 1, [0]),
        ("", 3, []),
    ],
)
def test_numbers_that_point_at_nothing(prompt: str, count: int, expected: list[int]) -> None:
    assert report.unmatched_mentions(prompt, count) == expected


def test_prompt_info() -> None:
    text = report.describe_for_prompt(references((160, 160), (176, 160)), "image 2 beside image 3")
    assert "image 1 160x160, image 2 176x160" in text
    assert "Warning: the prompt speaks of image 3, but there are only images 1 to 2." in text


# --- The sheet


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_every_picture_has_a_numbered_card(count: int) -> None:
    made = draw_sheet(references(*[(160, 160)] * count))
    assert made.dtype == torch.float32 and made.shape[0] == 1 and made.shape[3] == 3
    assert 0 <= made.min() and made.max() <= 1
    badge = torch.tensor(ACCENT) / 255
    columns = (made.shape[2] - GAP) // (WINDOW + 2 * PADDING + GAP)
    rows = made.shape[1] // (WINDOW + GAP)
    assert columns * rows >= count
    width, height = WINDOW + 2 * PADDING + GAP, (made.shape[1] - GAP) // rows
    for index in range(columns * rows):
        x, y = GAP + index % columns * width + PADDING, GAP + index // columns * height + PADDING + 16
        colour = badge if index < count else torch.tensor(PAPER) / 255
        assert torch.allclose(made[0, y, x], colour, atol=1e-3)


def test_the_sheet_shows_the_pictures_themselves() -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).expand(1, 160, 320, 3)
    made = draw_sheet(prepare_references({"image_1": red}, Preparation()))
    seen = (made[0] == torch.tensor([1.0, 0.0, 0.0])).all(-1).nonzero()
    height, width = (seen.max(0).values - seen.min(0).values + 1).tolist()
    assert (width, height) == (WINDOW, WINDOW // 2)


def test_the_sheet_changes_with_its_numbers() -> None:
    """Sizes, losses and the mark of the matched picture are really drawn."""
    flat = torch.full((1, 160, 320, 3), 0.5)
    plain = draw_sheet(prepare_references({"image_1": flat}, Preparation()))
    larger = draw_sheet(prepare_references({"image_1": flat.repeat(1, 2, 2, 1)}, Preparation()))
    cut = draw_sheet(
        prepare_references({"image_1": torch.full((1, 175, 320, 3), 0.5)}, Preparation(size="native"))
    )
    pair = {"image_1": flat, "image_2": flat}
    first, second = (draw_sheet(prepare_references(pair, Preparation(match_image=n))) for n in (1, 2))
    for one, other in ((plain, larger), (plain, cut), (first, second)):
        assert one.shape == other.shape and not torch.equal(one, other)


# --- The shelf


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40)), max_size=40))
def test_the_shelf_never_exceeds_its_limit(puts: list[tuple[int, int]]) -> None:
    shelf = LatentCache(max_bytes=100 * 4)
    for name, size in puts:
        latent = torch.full((size,), float(name))
        shelf.put(str(name), latent)
        assert shelf.bytes <= 400
        assert shelf.get(str(name)) is latent


def test_the_shelf_lets_the_least_used_go() -> None:
    shelf = LatentCache(max_bytes=3 * 4)
    for name in "abc":
        shelf.put(name, torch.zeros(1))
    shelf.get("a")
    shelf.put("d", torch.zeros(1))
    assert shelf.get("b") is None and shelf.get("a") is not None
    shelf.put("huge", torch.zeros(10))
    assert shelf.get("huge") is None and shelf.get("d") is not None
