"""Takes secrets out of text before anything is logged, stored or shown."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PATTERNS = (
    (re.compile(r"(?i)(bearer\s+)[^\s\"',;]+"), r"\1[key]"),
    (re.compile(r"(?i)(\"?(?:x-key|apikey|api_key|authorization)\"?\s*[:=]\s*\"?)[^\s\"',;]+"), r"\1[key]"),
    (re.compile(r"(?i)([?&](?:sig|se|sp|sv|sr|st|token|signature|x-amz-[a-z-]+)=)[^&\s\"']+"), r"\1[signed]"),
    (re.compile(r"[A-Za-z0-9+/_-]{200,}={0,2}"), "[data]"),
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without the given secrets, authorization headers, address signatures and long base64."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "[key]")
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def shorten(text: str, limit: int = 300) -> str:
    """One line of at most `limit` characters, fit for an error shown to an artist."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
