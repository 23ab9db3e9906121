"""Addresses of results that cannot be guessed and that expire: picture, time, and a seal over both."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable

_LINK = re.compile(r"([mp])\.([0-9a-f-]{36})\.(\d{1,12})\.([\w-]{43})(?:\.\w{1,4})?")
PICTURE, MEDIA = "p", "m"


class Links:
    """Makes and reads them with one secret, which the job book keeps. now: its clock."""

    def __init__(self, secret: str, now: Callable[[], float] = time.time) -> None:
        self._secret, self._now = secret.encode(), now

    def make(self, kind: str, identity: str, seconds: float, ending: str) -> str:
        expires = int(self._now() + seconds)
        return f"{kind}.{identity}.{expires}.{self._seal(kind, identity, expires)}.{ending}"

    def read(self, name: str) -> tuple[str, str] | None:
        """(kind, id), or None for an address that is wrong or past its time."""
        found = _LINK.fullmatch(name)
        if found is None:
            return None
        kind, identity, expires = found[1], found[2], int(found[3])
        if not hmac.compare_digest(found[4], self._seal(kind, identity, expires)):
            return None
        return (kind, identity) if self._now() < expires else None

    def _seal(self, kind: str, identity: str, expires: int) -> str:
        digest = hmac.new(self._secret, f"{kind} {identity} {expires}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
