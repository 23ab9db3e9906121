"""klein-nano's world drawn in batches is the world drawn one by one, and its looks are measured rightly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tools.nano import additions, looks, world
from tools.nano.canvas import Canvas, sprite
from tools.nano.learner import Learner, orthogonalised


@pytest.fixture(scope="module")
def canvas() -> Canvas:
    return Canvas()


@pytest.mark.parametrize("inked", [False, True])
@pytest.mark.parametrize(
    "subjects", [(3,), (additions.PENGUIN_INDEX,), (17, 40), (additions.PENGUIN_INDEX, 2)]
)
def test_the_canvas_draws_what_the_painter_draws(
    canvas: Canvas, subjects: tuple[int, ...], inked: bool
) -> None:
    rng = np.random.default_rng(4)
    placed = [world.anywhere(subject, rng) for subject in subjects]
    asked = additions.paint(placed, 5, inked)
    drawn = canvas.paint(
        torch.tensor([[sprite(p.subject, inked) for p in placed]]),
        torch.tensor([[(p.dx, p.dy) for p in placed]]),
        torch.tensor([5]),
    )
    # The painter rounds to whole 255ths.
    assert np.abs((drawn[0].permute(1, 2, 0).numpy() + 1) * 127.5 - asked).max() < 0.51


def test_free_pictures_stay_pictures(canvas: Canvas) -> None:
    torch.manual_seed(1)
    pictures = canvas.paint_freely(24)
    assert pictures.shape == (24, 3, world.SIZE, world.SIZE)
    assert pictures.min() >= -1 and pictures.max() <= 1
    assert (pictures.std((1, 2, 3)) > 0.05).sum() > 20


def test_subjects_stand_at_nine_places() -> None:
    rng = np.random.default_rng(2)
    places = {(p.dx, p.dy) for p in (world.jittered(0, rng) for _ in range(300))}
    assert len(places) == 9
    assert {abs(d) for place in places for d in place} == {0, world.JITTER}


@pytest.mark.parametrize("subjects", [(8,), (8, 30)])
def test_a_drawing_is_found_again_at_its_place(subjects: tuple[int, ...]) -> None:
    placed = [world.Placement(s, 3, -2) for s in subjects]
    picture = world.paint(placed, 2)
    noisy = picture + np.random.default_rng(0).normal(0, 4, picture.shape)
    found = looks.registered(noisy.clip(0, 255).astype(np.uint8), subjects, 2)
    assert np.array_equal(found, picture)


def test_looks_of_the_drawing_itself_are_perfect() -> None:
    picture = world.paint([world.Placement(11)], 1)
    measured = looks.measure(picture, picture)
    assert measured.psnr > 80
    assert measured.sharpness == pytest.approx(1) and measured.grid == pytest.approx(1)
    assert measured.off_palette == 0 and measured.unrest == pytest.approx(0, abs=1e-3)


def test_looks_tell_blur_grid_colour_and_unrest_apart() -> None:
    picture = world.paint([world.Placement(11)], 1)
    plain = picture.astype(np.float32)
    blurred = (plain + np.roll(plain, 1, 0) + np.roll(plain, 1, 1) + np.roll(plain, (1, 1), (0, 1))) / 4
    assert looks.measure(blurred.astype(np.uint8), picture).sharpness < 0.8
    cells = np.add.outer(np.arange(world.SIZE) // 16 % 2, np.arange(world.SIZE) // 16 % 2)[..., None] * 8
    tiled = looks.measure((plain * 0.9 + cells).astype(np.uint8), picture)
    assert tiled.grid > 1.2
    stained = picture.copy()
    stained[60:70, 60:70] = (0, 255, 0)
    assert looks.measure(stained, picture).off_palette == pytest.approx(100 / world.SIZE**2)
    noisy = (plain + np.random.default_rng(0).normal(0, 3, plain.shape)).clip(0, 255).astype(np.uint8)
    assert 2 < looks.measure(noisy, picture).unrest < 4
    with pytest.raises(ValueError, match="differ in size"):
        looks.measure(picture[:64], picture)


def test_orthogonalised_matrices_have_even_singular_values() -> None:
    torch.manual_seed(0)
    for shape in ((3, 8, 24), (3, 24, 8)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert values.min() > 0.4 and values.max() < 1.4


def test_the_learner_learns_hidden_and_other_weights() -> None:
    torch.manual_seed(0)
    wanted = {"hidden": torch.randn(4, 6), "bias": torch.randn(4)}
    inputs = torch.randn(64, 6)

    def loss(state: dict[str, torch.Tensor]) -> torch.Tensor:
        made, asked = (inputs @ s["hidden"].T + s["bias"] for s in (state, wanted))
        return (made - asked).square().mean()

    start = {name: torch.zeros_like(tensor) for name, tensor in wanted.items()}
    before = loss(start).item()
    learner = Learner(
        start, {"only": loss}, adam_rate=0.05, muon_rate=0.05, hidden=lambda name: name == "hidden"
    )
    learner.run(2.0, {"only": 1.0}, "test")
    assert loss(learner.averaged()).item() < 0.1 * before
