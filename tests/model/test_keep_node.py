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
