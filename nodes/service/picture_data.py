"""Pictures between the wire and the model: what clients send, and what they get."""

from __future__ import annotations

import base64
import binascii
import io
import re

from PIL import Image, ImageOps

from ..base.errors import InputError
from ..references.sizing import AUTO, plan_sizes
from ..remote.errors import Unsafe
from ..remote.images import decode, sniff
from .fetching import MAX_PICTURE_BYTES
from .messages import Refusal

_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
_FORMS = {"PNG": "PNG", "JPG": "JPEG", "WEBP": "WEBP"}
MIME = {"PNG": "image/png", "JPG": "image/jpeg", "WEBP": "image/webp"}
_STAND_IN_SIDE = 128


def read_base64(text: str, name: str) -> bytes:
    """The bytes of base64 or a data URI. Raises Refusal, naming the field."""
    body = _DATA_URI.sub("", text, count=1)
    if len(body) > MAX_PICTURE_BYTES * 4 // 3 + 4:
        raise _refuse(name, f"is larger than the {MAX_PICTURE_BYTES >> 20} MB allowed")
    try:
        data = base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error):
        data = b""
    if not data:
        raise _refuse(name, "is neither an address, a UUID, a data URI nor base64")
    return data


def check_picture(data: bytes, name: str) -> tuple[int, int]:
    """(width, height) of a picture that can be a reference. Raises Refusal."""
    if len(data) > MAX_PICTURE_BYTES:
        raise _refuse(name, f"is larger than the {MAX_PICTURE_BYTES >> 20} MB allowed")
    try:
        height, width = decode(data).shape[:2]
        plan_sizes([(width, height)], AUTO, 1.0, [f"'{name}'"])
    except Unsafe:
        raise _refuse(name, "is no PNG, JPEG or WebP picture of at most 24 megapixels") from None
    except InputError as error:
        raise Refusal(400, _code(name), str(error), name) from None
    return width, height


def has_transparency(data: bytes) -> bool:
    """Whether any part of a picture that was checked shows through."""
    with Image.open(io.BytesIO(data)) as picture:
        return any(picture.convert("RGBA").getchannel("A").histogram()[:255])


def shrink_for_stand_in(data: bytes) -> bytes:
    """A reference as large as klein-nano draws."""
    with Image.open(io.BytesIO(data)) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGBA")
    scale = _STAND_IN_SIDE / min(upright.size)
    if scale < 1:
        size = (round(upright.width * scale), round(upright.height * scale))
        upright = upright.resize(size, Image.Resampling.LANCZOS)
    ground = Image.new("RGBA", upright.size, "white")
    out = io.BytesIO()
    Image.alpha_composite(ground, upright).convert("RGB").save(out, "PNG", compress_level=1)
    return out.getvalue()


def encode_result(data: bytes, size: tuple[int, int], form: str, quality: int) -> bytes:
    """A drawn PNG as the client asked for it: brought to `size` (width, height), in the form PNG, JPG or
    WEBP, without the graph that ComfyUI writes into its files.
    """
    with Image.open(io.BytesIO(data)) as picture:
        plain = picture.convert("RGB")
    if plain.size != size:
        plain = ImageOps.fit(plain, size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    more = {"compress_level": 4} if form == "PNG" else {"quality": quality}
    if form == "JPG":
        more["subsampling"] = 0
    plain.save(out, _FORMS[form], **more)
    return out.getvalue()


def ending_of(data: bytes) -> str:
    return {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}[sniff(data) or "PNG"]


def _code(name: str) -> str:
    last = re.sub(r"\[\d+\]", "", name).rsplit(".", 1)[-1]
    return "invalid" + last[:1].upper() + last[1:]


def _refuse(name: str, words: str) -> Refusal:
    return Refusal(400, _code(name), f"'{name}' {words}.", name)
