"""Which worker drew a picture: a table beside the service's own, in the same file."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

from kleinod_pure.service.book import Book, Picture

_TABLE = "create table if not exists drawn_by (picture text primary key, worker text not null)"


class WorkersBook:
    """Forgets what the book has forgotten whenever it is opened."""

    def __init__(self, book: Book) -> None:
        self._book = book
        book.write(_TABLE)
        book.write("delete from drawn_by where picture not in (select id from pictures)")

    def note(self, picture_id: str, worker: str) -> None:
        """What cannot be written, on a full disk, is not known later; the picture is not held up by it."""
        with suppress(sqlite3.Error):
            self._book.write("insert or replace into drawn_by values (?, ?)", (picture_id, worker))

    def find(self, picture: Picture) -> str:
        """The worker's name, "" where it is not known."""
        rows = self._book.read("select worker from drawn_by where picture = ?", (picture.id,))
        return rows[0]["worker"] if rows else ""
