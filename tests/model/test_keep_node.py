"""Klein Keep as ComfyUI calls it: batches, masks of other sizes, what comes out."""

from __future__ import annotations

import pytest
import torch
from comfy import model_management
from kleinod.nodes.base.errors import ArtistError
from kleinod.nodes.edits.nodes import KleinodKeep


def draw(seed: int, count: int = 1) -> torch.Tensor:
    """IMAGE of random blobs, `[count, 96, 128, 3]`."""
    noise = torch.rand(count, 3, 12, 16, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (96, 128), mode="bicubic").clamp(0, 1).movedim(1, -1)


def add_patch(image: torch.Tensor) -> torch.Tensor:
    changed = image.clone()
    changed[:, 30:60, 40:90] = torch.tensor([0.9, 0.1, 0.6])
    return changed


def test_one_original_serves_a_batch_of_edits() -> None:
    original = draw(1)
    edits = torch.cat([add_patch(original), original])
    image, mask, sheet, info = KleinodKeep.execute(original, edits).result
    assert image.shape == (2, 96, 128, 3) and mask.shape == (2, 96, 128)
    assert torch.equal(image[1], original[0]) and not bool(mask[1].any())
    outside = mask[0] == 0
    assert torch.equal(image[0][outside], original[0][outside])
    # Where the patch happens to be like the original the original may stay.
    taken = (image[0, 35:55, 45:85] - edits[0, 35:55, 45:85]).abs().amax(dim=-1) < 0.5 / 255
    assert float(taken.float().mean()) > 0.97
    assert sheet.shape[0] == 1 and sheet.shape[3] == 3
    assert "picture 1" in info and "picture 2" in info and "bit for bit" in info


def test_a_mask_of_another_size_is_fitted() -> None:
    original = draw(2)
    mask = torch.zeros(1, 48, 64)
    mask[:, 15:30, 20:45] = 1
    image, used, _, _ = KleinodKeep.execute(original, add_patch(original), mask).result
    assert used.shape == (1, 96, 128)
    assert torch.equal(image[used == 0], original[used == 0])
    assert float((image[0, 40, 60] - torch.tensor([0.9, 0.1, 0.6])).abs().max()) < 0.02


def test_batches_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ArtistError, match="original holds 2 pictures, but the other input 3"):
        KleinodKeep.execute(draw(3, 2), draw(4, 3))


def test_an_interrupt_is_heard_between_pictures() -> None:
    model_management.interrupt_current_processing()
    try:
        with pytest.raises(model_management.InterruptProcessingException):
            KleinodKeep.execute(draw(5), draw(6, 2))
    finally:
        model_management.interrupt_current_processing(False)


def with_patch(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.zeros(96, 128)
    mask[30:60, 40:90] = 1
    return add_patch(image), mask


@pytest.mark.parametrize("shape", [(96, 128), (1, 96, 128), (1, 1, 96, 128), (96 * 4, 128 * 4)])
def test_masks_come_in_every_form(shape: tuple[int, ...]) -> None:
    original = draw(7)
    edited, mask = with_patch(original)
    if shape[-1] != 128:
        mask = mask.repeat_interleave(4, 0).repeat_interleave(4, 1)
    image, used, _, _ = KleinodKeep.execute(original, edited, mask.reshape(shape)).result
    assert torch.equal(used[0] > 0, with_patch(original)[1] > 0)
    assert torch.equal(image[used == 0], original[used == 0])


def test_a_line_in_a_larger_mask_is_not_lost() -> None:
    mask = torch.zeros(1, 96 * 8, 128 * 8)
    mask[0, 401] = 1
    _, used, _, _ = KleinodKeep.execute(draw(8), add_patch(draw(8)), mask).result
    assert used[0].any(dim=1).nonzero().flatten().tolist() == [50]


def test_whole_numbers_and_alpha_are_taken() -> None:
    original = torch.cat([draw(9), torch.full((1, 96, 128, 1), 0.25)], dim=-1)
    edited = (add_patch(original[..., :3]) * 255).round().to(torch.uint8)
    image, used, _, _ = KleinodKeep.execute(original, edited).result
    assert image.shape == (1, 96, 128, 4)
    assert torch.equal(image[..., 3], original[..., 3])
    assert torch.equal(image[used == 0], original[used == 0])
    assert float((image[0, 45, 60, :3] - torch.tensor([0.9, 0.1, 0.6])).abs().max()) < 0.02


def test_a_grey_original_gets_its_edit_in_colour() -> None:
    grey = draw(10)[..., :1]
    image, used, _, _ = KleinodKeep.execute(grey, add_patch(grey.expand(-1, -1, -1, 3))).result
    assert image.shape == (1, 96, 128, 3)
    assert torch.equal(image[used == 0], grey.expand(-1, -1, -1, 3)[used == 0])


@pytest.mark.parametrize("name", ["original", "edited", "mask"])
@pytest.mark.parametrize(("fault", "word"), [("nan", "not numbers"), ("shape", "has the shape")])
def test_what_is_no_picture_is_refused_by_the_inputs_name(name: str, fault: str, word: str) -> None:
    inputs = {"original": draw(11), "edited": add_patch(draw(11)), "mask": torch.ones(1, 96, 128)}
    inputs[name] = inputs[name] * float("nan") if fault == "nan" else inputs[name].flatten()
    with pytest.raises(ArtistError, match=f"{name} .*{word}"):
        KleinodKeep.execute(**inputs)


def test_floats_up_to_255_are_refused() -> None:
    with pytest.raises(ArtistError, match="edited holds values up to .* divide by 255"):
        KleinodKeep.execute(draw(12), draw(12) * 255)
