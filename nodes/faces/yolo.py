"""Face detection with our own YOLO network: fitting a picture in, reading boxes and outlines out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..base.errors import InputError
from ..base.sentences import say
from .boxes import suppress
from .detection import Face
from .network import Network, Predictions
from .tiling import TiledDetector

logger = logging.getLogger("kleinod.faces")

GREY = 114 / 255  # what YOLO's own training pads with
DUPLICATE = 0.7  # overlap for suppression within one search, Ultralytics' default
MAX_CANDIDATES = 2000
MAX_FOUND = 300


@dataclass(frozen=True)
class Fit:
    """How a picture lies in the network's input: scaled by `scale` to (height, width), `top` and `left`
    pixels in; `input`: height and width of it all."""

    input: tuple[int, int]
    height: int
    width: int
    top: int
    left: int
    scale: float


def fit_in(picture: torch.Tensor, size: int, stride: int) -> tuple[torch.Tensor, Fit]:
    """The picture `[H, W, 3]` scaled to `size` on its longer side and padded to multiples of `stride`:
    `[1, 3, h, w]`. Geometry and padding follow Ultralytics' letterbox, so that boxes agree."""
    height, width = picture.shape[:2]
    scale = min(size / height, size / width)
    inner = max(round(height * scale), 1), max(round(width * scale), 1)
    x = picture.permute(2, 0, 1)[None].float()
    if inner != (height, width):
        x = F.interpolate(x, size=inner, mode="bilinear", align_corners=False)
    rows, columns = ((size - side) % stride / 2 for side in inner)
    top, left = round(rows - 0.1), round(columns - 0.1)
    bottom, right = round(rows + 0.1), round(columns + 0.1)
    x = F.pad(x, (left, right, top, bottom), value=GREY)
    return x, Fit(tuple(x.shape[2:]), *inner, top, left, scale)


class YoloDetector(TiledDetector):
    """A `Detector` over a network of ours. `device` as torch understands it."""

    def __init__(
        self, name: str, network: Network, device: str = "cpu", pause: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(name, network.size, pause)
        self.network, self.device = network, device
        self.wanted = torch.tensor(choose_classes(network.labels))

    def detect(self, image: torch.Tensor, confidence: float) -> list[Face]:
        """See `Detector.detect`. The network stays on its device no longer than this takes."""
        try:
            self.network.to(self.device)
            return super().detect(image, confidence)
        except torch.OutOfMemoryError:
            if self.device == "cpu":
                raise
            logger.info('The GPU has no room for the detector "%s": it runs on the CPU.', self.name)
            self.device = "cpu"
        finally:
            self.network.to("cpu")
        return super().detect(image, confidence)

    @torch.inference_mode()
    def search(self, picture: torch.Tensor, confidence: float) -> list[Face]:
        """See `TiledDetector.search`."""
        fitted, fit = fit_in(picture, self.network.size, self.network.stride)
        predictions = self.network(fitted.to(self.device))
        scores, classes = predictions.scores[0].float().cpu().max(dim=1)
        if not torch.isfinite(scores).all():
            raise InputError(
                say(
                    'The detector "%1" answers with numbers that are none: its file is broken. '
                    "Pick another detector.",
                    self.name,
                )
            )
        # What is more a hand than a face is no face, so the best class decides before the choice of classes.
        sure = ((scores >= confidence) & torch.isin(classes, self.wanted)).nonzero()[:, 0]
        sure = sure[scores[sure].argsort(descending=True, stable=True)][:MAX_CANDIDATES]
        boxes, scores, classes = predictions.boxes[0].float().cpu()[sure], scores[sure], classes[sure]
        if not predictions.distinct:
            # Far apart per class, so that classes do not suppress each other.
            kept = suppress(boxes + classes[:, None] * 2.0 * max(fitted.shape[2:]), scores, DUPLICATE)
            sure, boxes, scores, classes = sure[kept], boxes[kept], scores[kept], classes[kept]
        shape = tuple(picture.shape[:2])
        placed = _undo(boxes, fit, shape)
        real = ((placed[:, 2:] - placed[:, :2]) > 0).all(dim=1).nonzero()[:MAX_FOUND, 0]
        masks = _outlines(predictions, sure[real], boxes[real], fit, shape)
        return [
            Face(
                tuple(placed[row].tolist()),
                float(scores[row]),
                None if masks is None else masks[number],
                self.network.labels[int(classes[row])],
            )
            for number, row in enumerate(real.tolist())
        ]


def choose_classes(labels: tuple[str, ...]) -> list[int]:
    """The classes that matter to a face refiner: those called faces or heads, else people, else all."""
    for word in ("face", "head", "person"):
        found = [index for index, label in enumerate(labels) if word in label.lower()]
        if found:
            return found
    return list(range(len(labels)))


def _undo(boxes: torch.Tensor, fit: Fit, shape: tuple[int, int]) -> torch.Tensor:
    """From pixels of the network's input to pixels of the picture, cut at its edges."""
    offset = torch.tensor([fit.left, fit.top, fit.left, fit.top], dtype=torch.float32)
    height, width = shape
    limit = torch.tensor([width, height, width, height], dtype=torch.float32)
    return torch.minimum(((boxes - offset) / fit.scale).clamp(min=0), limit)


def _outlines(
    predictions: Predictions, places: torch.Tensor, boxes: torch.Tensor, fit: Fit, shape: tuple[int, int]
) -> torch.Tensor | None:
    """Soft masks `[N, H, W]` over the picture: prototypes weighted per face, cut at its box, scaled back."""
    if predictions.prototypes is None or predictions.coefficients is None:
        return None
    prototypes = predictions.prototypes[0].float().cpu()
    weights = predictions.coefficients[0].float().cpu()[places]
    if not len(weights):
        return torch.zeros(0, *shape)
    values = (weights @ prototypes.flatten(1)).view(1, -1, *prototypes.shape[1:])
    values = F.interpolate(values, size=fit.input, mode="bilinear", align_corners=False)[0].sigmoid()
    rows, columns = torch.arange(fit.input[0])[None, :, None], torch.arange(fit.input[1])[None, None]
    x0, y0, x1, y1 = (edge[:, None, None] for edge in boxes.unbind(dim=1))
    values = values * ((columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1))
    values = values[:, fit.top : fit.top + fit.height, fit.left : fit.left + fit.width]
    if values.shape[1:] != shape:
        values = F.interpolate(values[None], size=shape, mode="bilinear", align_corners=False)[0]
    return values
