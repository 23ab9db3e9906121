"""Forms with files (RFC 7578), as far as picture clients send them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..messages import Refusal

_MOST_PARTS = 64
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,200})"|([^\s;,]{1,200}))', re.IGNORECASE)
_PARAMETER = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Part:
    """One field. file: whether it came with a file's name."""

    name: str
    data: bytes
    file: bool


def read_form(content_type: str, body: bytes) -> list[Part]:
    """The fields in order. Raises Refusal."""
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or found is None:
        raise Refusal(400, "invalidRequest", "The body must be multipart/form-data with a boundary.")
    mark = b"--" + (found[1] or found[2]).encode("utf-8", "replace")
    pieces = (b"\r\n" + body).split(b"\r\n" + mark)
    if len(pieces) < 3 or not pieces[-1].startswith(b"--") or len(pieces) > _MOST_PARTS:
        raise Refusal(400, "invalidRequest", "The form is incomplete, or has too many fields.")
    return [_read_part(piece) for piece in pieces[1:-1]]


def _read_part(piece: bytes) -> Part:
    head, gap, data = piece.partition(b"\r\n\r\n")
    if not gap:
        raise Refusal(400, "invalidRequest", "A field of the form has no head.")
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            words = dict(_PARAMETER.findall(value))
            return Part(words.get("name", ""), data, "filename" in words)
    raise Refusal(400, "invalidRequest", "A field of the form has no name.")
