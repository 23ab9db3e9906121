"""Sentences for the person at the page. Every other exception is a bug and is shown as one.

    ArtistError
    +-- InputError       an input, a file or a setting is not what was expected (also a ValueError)
    +-- RemoteError      a paid job did not give what was asked for: `nodes/remote/errors.py`

The text is one whole sentence, or two: it names the input, what came, what was expected and what to do.
"""

from __future__ import annotations

from .sentences import Sentence


class ArtistError(Exception):
    """Its text is written for the person who uses the node, and is shown on it.

    ComfyUI names an error by its module, which for a pack is a path of the user's disk: ours go by the pack.
    """

    __module__ = "kleinod"

    def __init__(self, text: Sentence) -> None:
        super().__init__(text)

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls.__module__ = "kleinod"


class InputError(ArtistError, ValueError):
    """What the user gave is not what was expected."""
