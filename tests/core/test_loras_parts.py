"""A change added to a weight and the same change beside the layer are one and the same."""

from __future__ import annotations

import pytest
import torch
from kleinod_pure.loras.parts import Part, SidePath, add_parts, compute_delta
from torch import Tensor

ROWS, COLUMNS = 24, 12


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


KINDS = {
    "lora": ("lora", (draw(1, ROWS, 3), draw(2, 3, COLUMNS))),
    "lora of a 1x1 convolution": ("lora", (draw(1, ROWS, 3, 1, 1), draw(2, 3, COLUMNS, 1, 1))),
    "loha": ("loha", (draw(1, ROWS, 3), draw(2, 3, COLUMNS), draw(3, ROWS, 2), draw(4, 2, COLUMNS))),
    "lokr": ("lokr", (draw(1, 4, 3), draw(2, 6, 4))),
    "lokr of products": ("lokr", ((draw(1, 4, 2), draw(2, 2, 3)), (draw(3, 6, 2), draw(4, 2, 4)))),
    "diff": ("diff", (draw(1, ROWS, COLUMNS),)),
}
MAGNITUDES = {"none": None, "rows": 1 + draw(9, ROWS).abs(), "columns": 1 + draw(9, 1, COLUMNS).abs()}


@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dims", [2, 3])
def test_side_path_equals_patched_weight(kind: str, magnitude: str, dims: int) -> None:
    part = Part(KINDS[kind][0], 0.5, -1.25, MAGNITUDES[magnitude], KINDS[kind][1])
    weight, x = draw(5, ROWS, COLUMNS), draw(6, *(2, 5, COLUMNS)[3 - dims :])
    out = x @ weight.t()
    path = SidePath([part, part], (ROWS, COLUMNS), 0, 0, weight.device, torch.float64, lambda: weight.clone())
    path.add_to(x, out)
    wanted = x @ add_parts(weight.clone(), [part, part]).t()
    assert (out - wanted).abs().max() < 1e-5  # dense sums are float32
    assert (wanted - x @ weight.t()).abs().max() > 0.1


def test_rows_of_a_fused_layer() -> None:
    """Rows 24 to 48 of 60 change, the others stay bit for bit, also where the output is no plain block."""
    part = Part("lora", 1.0, 1.0, None, KINDS["lora"][1])
    whole, x = draw(7, 60, COLUMNS), draw(8, 4, COLUMNS)
    changed = whole.clone()
    changed[24:48] = add_parts(whole[24:48].clone(), [part])
    for out in (x @ whole.t(), (whole @ x.t()).t()):
        before = out.clone()
        SidePath([part], (ROWS, COLUMNS), 24, ROWS, whole.device, torch.float64).add_to(x, out)
        assert torch.allclose(out, x @ changed.t(), atol=1e-12)
        assert torch.equal(out[:, :24], before[:, :24]) and torch.equal(out[:, 48:], before[:, 48:])


def test_order_of_parts_does_not_matter_to_dora() -> None:
    weight = draw(5, ROWS, COLUMNS)
    dora = Part("lora", 1.0, 1.0, MAGNITUDES["rows"], KINDS["lora"][1])
    plain = Part("loha", 1.0, 0.5, None, KINDS["loha"][1])
    first, second = (add_parts(weight.clone(), parts) for parts in ([dora, plain], [plain, dora]))
    assert torch.allclose(first, second, atol=1e-12)


def test_bfloat16_rounds_once_per_product() -> None:
    """The file's numbers are not rounded again: the factor acts between the products."""
    up, down = draw(1, ROWS, 3).bfloat16(), draw(2, 3, COLUMNS).bfloat16()
    part = Part("lora", 1 / 3, 0.7, None, (up, down))
    x = draw(3, 8, COLUMNS).bfloat16()
    out = torch.zeros(8, ROWS, dtype=torch.bfloat16)
    SidePath([part], (ROWS, COLUMNS), 0, 0, out.device, out.dtype).add_to(x, out)
    exact = x.double() @ (compute_delta(part, torch.zeros(ROWS, COLUMNS, dtype=torch.float64)) * 0.7).t()
    assert (out.double() - exact).abs().max() < 0.03 * exact.abs().max()
