"""Keys of the API: 256 random bits each, kept as a hash, with a name, limits and an end.

A key is shown once, when it is made. It has as many bits as its hash, so a plain SHA-256 is as hard to undo
as any slow one, and costs a request nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
from dataclasses import dataclass

from ..base.errors import InputError
from ..base.sentences import say
from .book import Book

PREFIX = "kleinod-"
DEFAULT_AT_ONCE = 256
MOST = 1_000_000
_NAME = re.compile(r"[\w .@-]{1,60}")


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret. at_once: pictures that may be open; a_day: jobs in 24 hours (0: any)."""

    id: int
    name: str
    at_once: int
    a_day: int
    created: float
    revoked: bool


class KeyBook:
    """The keys of one Book."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def create(self, name: str, at_once: int = DEFAULT_AT_ONCE, a_day: int = 0) -> str:
        """A new key under this name, shown here and never again. Raises InputError."""
        name = name.strip() if isinstance(name, str) else ""
        if not _NAME.fullmatch(name):
            raise InputError(
                say("The name of a key has 1 to 60 letters, digits, spaces or signs such as %1.", ". _ - @")
            )
        for title, value, least in ((say("jobs at once"), at_once, 1), (say("jobs a day"), a_day, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST:
                raise InputError(
                    say("%1 is %2, but must be a whole number from %3 to %4.", title, value, least, MOST)
                )
        secret = PREFIX + secrets.token_urlsafe(32)
        try:
            self._book.write(
                "insert into keys (name, hash, at_once, a_day, created) values (?, ?, ?, ?, ?)",
                (name, _hash(secret), at_once, a_day, self._book.now()),
            )
        except sqlite3.IntegrityError:
            raise InputError(say("There is a key named '%1' already: choose another name.", name)) from None
        return secret

    def revoke(self, name: str) -> None:
        """End a key, whatever it still has open. Raises InputError where there is none of that name."""
        if not self._book.write("update keys set revoked = 1 where name = ? and not revoked", (name,)):
            raise InputError(say("There is no key named '%1' that could be revoked.", name))

    def list(self) -> list[ApiKey]:
        return [_read(row) for row in self._book.read("select * from keys order by id")]

    def find(self, secret: str) -> ApiKey | None:
        """The key this text is, or None. Every stored hash is compared, each in constant time."""
        digest, found = _hash(secret), None
        for row in self._book.read("select * from keys"):
            if hmac.compare_digest(row["hash"], digest):
                found = row
        return None if found is None or found["revoked"] else _read(found)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _read(row: sqlite3.Row) -> ApiKey:
    return ApiKey(row["id"], row["name"], row["at_once"], row["a_day"], row["created"], bool(row["revoked"]))
