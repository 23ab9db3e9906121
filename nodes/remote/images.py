"""Pictures to bytes and back, with every limit checked before a decoder sees the bytes.

Arrays are `[H, W, 3]` float32 in 0..1 (numpy), one per picture: sizes may differ, and nothing is cropped to
agree.
"""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ..base.errors import InputError
from ..base.sentences import say
from .errors import Unsafe

MAX_PIXELS = 24_000_000
MAX_SIDE = 8192
UPLOAD_FORMATS = ("PNG", "JPG", "WEBP")
_SAVING: dict[str, tuple[str, dict[str, Any]]] = {
    "PNG": ("PNG", {"compress_level": 4}),
    "JPG": ("JPEG", {"quality": 95, "subsampling": 0}),
    "WEBP": ("WEBP", {"quality": 90}),
}
# Photographs; drawings are smaller.
_BYTES_PER_PIXEL = {"PNG": 1.7, "JPG": 0.6, "WEBP": 0.25}
_MAGIC = ((b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"))


def sniff(data: bytes) -> str | None:
    """PNG, JPEG or WEBP by the first bytes; None for anything else."""
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def decode(data: bytes) -> np.ndarray:
    """RGB float32 `[H, W, 3]` of one PNG, JPEG or WEBP; Unsafe for anything else, too large, or damaged.

    The first frame only, turned upright by its EXIF orientation; alpha is dropped, as ComfyUI's Load Image
    does.
    """
    kind = sniff(data)
    if kind is None:
        raise Unsafe(say("The service sent something that is no PNG, JPEG or WEBP picture."))
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as picture:
            width, height = picture.size
            # Pillow's own limit is a setting of the whole process: not ours to change, so the check is ours
            # too.
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                raise Unsafe(
                    say(
                        "The service sent a picture of %1x%2, more than Kleinod opens (24 megapixels).",
                        width,
                        height,
                    )
                )
            picture.load()
            return _to_array(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError:
        raise Unsafe(
            say("The service sent a picture far larger than Kleinod opens (24 megapixels).")
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise Unsafe(say("The service sent a damaged picture (%1).", type(error).__name__)) from None


def _to_array(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).astype(np.float32) / 65535
        return np.repeat(grey[..., None], 3, axis=2)
    bytes_ = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    return np.divide(bytes_, np.float32(255), dtype=np.float32)


def split_frames(images: Any) -> list[np.ndarray]:
    """Every frame of one or several IMAGE tensors `[B, H, W, C]` as `[H, W, 3]` float arrays."""
    batches = images if isinstance(images, (list, tuple)) else [images]
    frames = []
    for batch in batches:
        array = np.asarray(batch.detach().cpu().float().numpy() if hasattr(batch, "detach") else batch)
        if array.ndim == 3:
            array = array[None]
        if array.ndim != 4 or array.shape[-1] not in (1, 2, 3, 4):
            raise InputError(
                say("A reference image has the shape %1; expected an IMAGE [B, H, W, 3].", array.shape)
            )
        if not np.isfinite(array).all():
            raise InputError(
                say("A reference image holds values that are not numbers (NaN); check the node before it.")
            )
        frames += [_to_rgb(frame) for frame in array]
    return frames


def _to_rgb(frame: np.ndarray) -> np.ndarray:
    """Three channels; transparency is laid on white, as Klein References does, instead of showing what it
    hides.
    """
    channels = frame.shape[-1]
    colour = frame[..., :-1] if channels in (2, 4) else frame
    if colour.shape[-1] == 1:
        colour = np.repeat(colour, 3, axis=2)
    if channels in (1, 3):
        return colour
    alpha = np.clip(frame[..., -1:], 0, 1)
    return colour * alpha + (1 - alpha)


def collect_frames(references: Any, pictures: Any, most: int, title: str) -> list[np.ndarray]:
    """The source pictures of a node: those of a References, then every frame of its IMAGE inputs (None where
    nothing is connected), each `[H, W, 3]`. InputError for more than `most`, and for references that are to
    count more or less: no service can do that, and leaving it out would be paid for.
    """
    if references is not None and references.weighing:
        raise InputError(
            say(
                "references weighs %1, but %2 knows neither weights, steps nor places: "
                "empty them in Klein References, or make this picture with Klein Sampler.",
                references.weighing,
                title,
            )
        )
    batches = [] if references is None else list(references.images)
    given = pictures if isinstance(pictures, (list, tuple)) else [pictures]
    batches += [batch for batch in given if batch is not None]
    frames = split_frames(batches) if batches else []
    if len(frames) > most:
        raise InputError(
            say(
                "references and images hold %1 pictures together, and %2 takes at most %3. "
                "Connect fewer; each frame of a batch counts as one.",
                len(frames),
                title,
                most,
            )
        )
    return frames


def encode(
    frame: np.ndarray,
    form: str = "PNG",
    *,
    max_pixels: int | None = None,
    longest_side: int | None = None,
) -> bytes:
    """A file of `[H, W, 3]` in 0..1, made smaller (same aspect) only if it passes a limit.

    form: one of UPLOAD_FORMATS.
    """
    picture = Image.fromarray((np.clip(frame, 0, 1) * 255 + 0.5).astype(np.uint8))
    size = fit_size(picture.size, max_pixels, longest_side)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, *_SAVING[form][:1], **_SAVING[form][1])
    return out.getvalue()


def fit_size(
    size: tuple[int, int], max_pixels: int | None = None, longest_side: int | None = None
) -> tuple[int, int]:
    """(width, height) within both limits, the same aspect."""
    width, height = size
    scale = min(
        1.0,
        math.sqrt(max_pixels / (width * height)) if max_pixels else 1.0,
        longest_side / max(size) if longest_side else 1.0,
    )
    return size if scale >= 1 else (max(1, int(width * scale)), max(1, int(height * scale)))


def estimate_bytes(pixels: float, form: str) -> int:
    """About how many bytes a source picture of so many pixels adds to a request, base64 included."""
    return round(pixels * _BYTES_PER_PIXEL[form] * 4 / 3)


def to_data_uri(file: bytes) -> str:
    return f"data:image/{(sniff(file) or 'png').lower()};base64,{base64.b64encode(file).decode('ascii')}"


def from_base64(text: str) -> bytes:
    """The bytes of base64 or a data URI; Unsafe when too long or not base64."""
    text = text.partition(",")[2] if text.startswith("data:") else text
    if len(text) > (64 << 20) * 4 // 3 + 4:
        raise Unsafe(say("The service sent more than the 64 MB allowed for one picture."))
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise Unsafe(say("The service sent a picture that is not base64.")) from None


def make_placeholder(width: int, height: int) -> np.ndarray:
    """A grey picture with a diagonal cross: the place of a result that moderation kept back."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    rows, columns = rows / max(height - 1, 1), columns / max(width - 1, 1)
    cross = np.minimum(np.abs(rows - columns), np.abs(1 - rows - columns)) < 0.01
    return np.repeat(np.where(cross, 0.25, 0.5).astype(np.float32)[..., None], 3, axis=2)
