"""Boxes, tiles and the whole detector: what is found lies where it was drawn, at any size and every edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kleinod_pure.faces.blueprint import read_blueprint
from kleinod_pure.faces.boxes import MAX_TILES, merge, overlap, suppress, tiles, touches_inner_edge
from kleinod_pure.faces.detection import Face
from kleinod_pure.faces.network import Network
from kleinod_pure.faces.tiling import merge_searches
from kleinod_pure.faces.yolo import YoloDetector, choose_classes, fit_in

from tests.core.yolo_files import NANO_FILE
from tools.nano.faces import draw_scene, place
from tools.nano.world import BACKGROUNDS


@pytest.fixture(scope="module")
def detector() -> YoloDetector:
    return YoloDetector("nano", Network(read_blueprint(NANO_FILE)))


def boxes(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_overlap_by_hand() -> None:
    a = boxes((0, 0, 10, 10))
    b = boxes((0, 0, 10, 10), (5, 0, 15, 10), (10, 0, 20, 10), (2, 2, 4, 4))
    assert torch.allclose(overlap(a, b), torch.tensor([[1.0, 1 / 3, 0.0, 0.04]]))


def test_suppression_keeps_the_best_of_each_heap() -> None:
    heap = boxes((0, 0, 10, 10), (1, 0, 11, 10), (40, 0, 50, 10), (41, 1, 51, 11))
    assert suppress(heap, torch.tensor([0.5, 0.9, 0.8, 0.3]), 0.45).tolist() == [1, 2]


def test_suppression_agrees_with_torchvision() -> None:
    import torchvision

    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(400, 2, generator=generator) * 100
    many = torch.cat((corners, corners + 5 + 40 * torch.rand(400, 2, generator=generator)), dim=1)
    scores = torch.rand(400, generator=generator)
    for limit in (0.2, 0.45, 0.7):
        assert suppress(many, scores, limit).tolist() == torchvision.ops.nms(many, scores, limit).tolist()


def test_a_part_of_a_face_is_dropped_but_a_group_does_not_swallow_its_faces() -> None:
    assert merge(boxes((0, 0, 100, 100), (30, 30, 60, 60)), torch.tensor([0.8, 0.9])).tolist() == [0]
    assert merge(boxes((0, 0, 100, 100), (30, 30, 60, 60)), torch.tensor([0.3, 0.9])).tolist() == [1, 0]
    group = boxes((0, 0, 100, 100), (5, 5, 30, 30), (60, 60, 90, 90))
    assert sorted(merge(group, torch.tensor([0.9, 0.9, 0.9])).tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    "shape", [(100, 100), (1200, 500), (768, 1024), (4000, 6000), (90, 20_000), (3000, 3000)]
)
def test_tiles_cover_every_pixel_and_hold_every_small_face_whole(shape) -> None:
    height, width = shape
    made = tiles(height, width, 640)
    assert len(made) <= MAX_TILES and bool(made) == (max(shape) > 800)
    if not made:
        return
    assert all(0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height for x0, y0, x1, y1 in made)
    covered = np.zeros((height // 10, width // 10), bool)
    for x0, y0, x1, y1 in made:
        covered[y0 // 10 : -(-y1 // 10), x0 // 10 : -(-x1 // 10)] = True
    assert covered.all()
    rng = np.random.default_rng(0)
    for _ in range(200):
        side = int(rng.integers(1, min(150, height, width)))
        x, y = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
        assert any(
            x0 <= x and y0 <= y and x + side <= x1 and y + side <= y1 for x0, y0, x1, y1 in made
        ), (x, y, side)  # fmt: skip


def test_only_inner_edges_cut() -> None:
    tile = (100, 0, 200, 100)
    given = boxes((100, 20, 130, 50), (150, 0, 170, 20), (180, 20, 200, 40), (120, 20, 150, 50))
    assert touches_inner_edge(given, tile, 100, 300).tolist() == [True, False, True, False]
    assert touches_inner_edge(given, tile, 100, 200).tolist() == [True, False, False, False]


def test_masks_of_tiles_lie_in_the_whole_picture() -> None:
    found = Face((10.0, 20.0, 30.0, 40.0), 0.9, torch.ones(50, 60))
    (face,) = merge_searches([((0, 0, 200, 100), []), ((100, 50, 160, 100), [found])], 100, 200)
    assert face.box == (110.0, 70.0, 130.0, 90.0) and face.mask.shape == (100, 200)
    assert face.mask.sum() == 50 * 60 and face.mask[50:100, 100:160].all()


def test_classes_that_matter() -> None:
    assert choose_classes(("hand", "Face", "anime_face")) == [1, 2]
    assert choose_classes(("person", "car")) == [0]
    assert choose_classes(("eye", "mouth")) == [0, 1]


def test_fitting_in_keeps_proportions() -> None:
    fitted, fit = fit_in(torch.rand(300, 517, 3), 640, 32)
    assert fitted.shape == (1, 3, 384, 640) and (fit.height, fit.width) == (371, 640)
    assert fitted[0, :, : fit.top].unique().numel() == 1
    exact = torch.rand(192, 256, 3)
    assert torch.equal(fit_in(exact, 256, 32)[0][0].permute(1, 2, 0), exact)


def found_share(detector: YoloDetector, picture: np.ndarray, drawn: list) -> float:
    faces = detector.detect(torch.from_numpy(picture), 0.4)
    assert faces == sorted(faces, key=lambda face: -face.score)
    if not faces:
        return 0.0
    seen = overlap(torch.tensor([face.box for face in faces]), torch.tensor([face.box for face in drawn]))
    return float((seen.amax(0) >= 0.5).float().mean())


def test_drawn_faces_are_found(detector) -> None:
    shares = []
    for seed in range(6):
        picture, drawn, _ = draw_scene(np.random.default_rng(2_000_000 + seed))
        shares.append(found_share(detector, picture, drawn))
    assert np.mean(shares) >= 0.9, shares


def test_small_faces_of_a_large_picture_are_found_because_of_the_tiles(detector) -> None:
    rng = np.random.default_rng(2_000_100)
    picture, drawn, _ = draw_scene(rng, width=1024, height=768, faces=12, things=0, sizes=(26, 44))
    assert found_share(detector, picture, drawn) >= 0.9
    whole = detector.search(torch.from_numpy(picture), 0.4)
    seen = (
        overlap(torch.tensor([f.box for f in whole]), torch.tensor([f.box for f in drawn])) if whole else None
    )
    assert seen is None or float((seen.amax(0) >= 0.5).float().mean()) < 0.7


def test_faces_at_every_edge_are_found_and_stay_inside(detector) -> None:
    width, height, size = 320, 256, 60
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = np.asarray(BACKGROUNDS["blue"], np.float32) / 255
    spots = [
        (0, 0),
        (width - size, 0),
        (0, height - size),
        (width - size, height - size),
        (130, -12),
        (130, 208),
    ]
    drawn = [
        place(picture, subject, *spot, size) for subject, spot in zip((0, 5, 8, 12, 3, 7), spots, strict=True)
    ]
    assert found_share(detector, picture, drawn) >= 0.8
    for face in detector.detect(torch.from_numpy(picture), 0.4):
        x0, y0, x1, y1 = face.box
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height


def test_an_empty_picture_has_no_face(detector) -> None:
    for colour in BACKGROUNDS.values():
        picture = torch.tensor(colour).float().div(255).expand(256, 384, 3)
        assert detector.detect(picture, 0.5) == []


def test_what_pauses_may_interrupt(detector) -> None:
    class Interrupt(BaseException):
        pass

    def stop() -> None:
        raise Interrupt

    with pytest.raises(Interrupt):
        YoloDetector("nano", detector.network, pause=stop).detect(torch.zeros(64, 64, 3), 0.5)


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (5, 5, 1, 9), (0, 0, float("nan"), 2), (0, 1, 2)])
def test_a_face_needs_a_box(box) -> None:
    with pytest.raises(ValueError, match="box"):
        Face(box)
