"""Takes secrets out of text before anything is logged, stored or shown."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterable
from urllib.parse import quote

_PATTERNS = (
    (re.compile(r"(?i)(bearer\s+)[^\s\"',;]+"), r"\1[key]"),
    (re.compile(r"(?i)(\"?(?:x-key|apikey|api_key|authorization)\"?\s*[:=]\s*\"?)[^\s\"',;]+"), r"\1[key]"),
    (re.compile(r"(?i)([?&](?:sig|se|sp|sv|sr|st|token|signature|x-amz-[a-z-]+)=)[^&\s\"']+"), r"\1[signed]"),
    (re.compile(r"[A-Za-z0-9+/_-]{200,}={0,2}"), "[data]"),
)


# A picture inside an answer: no text that anyone reads, and a piece cut out would be a picture lost.
_LONG = 1 << 16
_PIECE = 12


def hide_key(text: str, key: str) -> str:
    """`text` with a key taken out in every form in which a service might say it back: whole, or twelve
    characters of it or more, in other capitals, percent-encoded, in base64.
    """
    if len(text) > _LONG:
        return text.replace(key, "[key]")
    low = text.lower()
    spans: list[tuple[int, int]] = []
    for form in _spell(key):
        size = min(_PIECE, len(form))
        for start in range(len(form) - size + 1):
            piece = form[start : start + size]
            at = low.find(piece)
            while at >= 0:
                spans.append((at, at + size))
                at = low.find(piece, at + 1)
    if not spans or len(low) != len(text):
        return text.replace(key, "[key]")
    parts: list[str] = []
    end = 0
    for start, stop in sorted(spans):
        if start > end or not parts:
            parts += [text[end:start], "[key]"]
        end = max(end, stop)
    return "".join(parts) + text[end:]


@functools.lru_cache(maxsize=64)
def _spell(key: str) -> tuple[str, ...]:
    """The key in lower case, as an address has it, and inside base64 wherever it may begin there."""
    forms = {key, quote(key, safe="")}
    for before in range(3):
        data = base64.b64encode(b"\0" * before + key.encode())
        # Without the characters that also hold bits of the neighbours.
        forms.add(data.decode().rstrip("=")[(before * 8 + 5) // 6 : -1])
    return tuple(form.lower() for form in forms if len(form) >= 8)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without the given secrets, authorization headers, address signatures and long base64."""
    for secret in secrets:
        text = hide_key(text, secret)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def shorten(text: str, limit: int = 300) -> str:
    """One line of at most `limit` characters, fit for an error shown to an artist."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
