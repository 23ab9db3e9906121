"""Searches a picture whole and, where it is large, in overlapping tiles too, which finds small faces."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .boxes import merge, tiles, touches_inner_edge
from .detection import Face

Tile = tuple[int, int, int, int]


class TiledDetector:
    """What all detectors share: `detect` over the `search` of one back end.

    side: pixels of a picture's longer side that one search sees well. pause: called before each search; what
    it raises ends the detection, which is how an interrupt gets in.
    """

    def __init__(self, name: str, side: int, pause: Callable[[], None] = lambda: None) -> None:
        self.name, self.side, self.pause = name, side, pause

    def search(self, picture: torch.Tensor, confidence: float) -> list[Face]:
        """Faces of one picture `[H, W, 3]`, float32 in 0..1, in one look."""
        raise NotImplementedError

    def detect(self, image: torch.Tensor, confidence: float) -> list[Face]:
        """See `Detector.detect`."""
        picture = image[..., :3].detach().float().cpu()
        height, width = picture.shape[:2]
        searches = []
        for x0, y0, x1, y1 in [(0, 0, width, height), *tiles(height, width, self.side)]:
            self.pause()
            searches.append(((x0, y0, x1, y1), self.search(picture[y0:y1, x0:x1], confidence)))
        return merge_searches(searches, height, width)


def merge_searches(searches: list[tuple[Tile, list[Face]]], height: int, width: int) -> list[Face]:
    """The distinct faces of a picture, best first, from what was found in its tiles, each in the tile's own
    pixels."""
    found: list[Face] = []
    for tile, faces in searches:
        if not faces:
            continue
        boxes = torch.tensor([face.box for face in faces]) + torch.tensor([tile[0], tile[1]] * 2)
        cut = touches_inner_edge(boxes, tile, height, width).tolist()
        for face, box, is_cut in zip(faces, boxes.tolist(), cut, strict=True):
            if not is_cut:
                found.append(Face(tuple(box), face.score, _whole(face.mask, tile, height, width), face.label))
    if not found:
        return []
    boxes = torch.tensor([face.box for face in found])
    scores = torch.tensor([face.score for face in found])
    return [found[index] for index in merge(boxes, scores).tolist()]


def _whole(mask: torch.Tensor | None, tile: Tile, height: int, width: int) -> torch.Tensor | None:
    """A tile's mask laid into the whole picture."""
    if mask is None or mask.shape == (height, width):
        return mask
    whole = torch.zeros(height, width)
    whole[tile[1] : tile[3], tile[0] : tile[2]] = mask
    return whole
