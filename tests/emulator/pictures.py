"""What the emulator draws: a pattern that follows prompt and seed, with EMULATOR written on it."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw


def draw_pattern(prompt: str, width: int, height: int, seed: int) -> np.ndarray:
    """uint8 [height, width, 3]; the same arguments give the same picture."""
    digest = hashlib.sha256(f"{seed}|{prompt}".encode()).digest()
    coarse = np.frombuffer((digest * 6)[:192], np.uint8).reshape(8, 8, 3)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
    return sign(picture)


def sign(picture: Image.Image) -> np.ndarray:
    """Write EMULATOR into the corner: nobody shall take the picture for the service's."""
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, 78, 13), fill=(0, 0, 0))
    pen.text((3, 1), "EMULATOR", fill=(255, 255, 255))
    return np.asarray(picture)


def encode(pixels: np.ndarray, form: str, variant: str = "") -> bytes:
    """JPG, PNG or WEBP bytes; `variant` gives the odd pictures of the fault list."""
    picture = Image.fromarray(pixels)
    out = io.BytesIO()
    if variant == "rgba":
        picture.putalpha(128)
        picture.save(out, "PNG", compress_level=1)
    elif variant == "palette":
        picture.quantize(32).save(out, "PNG")
    elif variant == "grey16":
        grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        Image.fromarray(grey).save(out, "PNG")
    elif variant == "exif":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.rotate(90, expand=True).save(out, "JPEG", quality=95, exif=exif)
    elif form in ("JPG", "jpeg"):
        picture.save(out, "JPEG", quality=95)
    elif form in ("WEBP", "webp"):
        picture.save(out, "WEBP", quality=95)
    else:
        picture.save(out, "PNG", compress_level=1)
    return out.getvalue()


def bomb_png(side: int = 60000) -> bytes:
    """A few hundred bytes that claim to be a picture of `side` x `side`."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(65536))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
