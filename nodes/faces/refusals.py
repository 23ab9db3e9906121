"""Why a detector's file is not read: kinds that a person can act on, each with the fault for a report.

What is in the brackets stays English, like an exception's name.
"""

from __future__ import annotations

from ..base.errors import InputError
from ..base.sentences import say


def damaged(fault: str) -> InputError:
    return InputError(say("it is cut short or damaged (%1): download it again.", fault))


def too_large(size: str) -> InputError:
    """Larger than is sensible to read, whatever it holds."""
    return InputError(say("it is larger than any face detector (%1): pick another file.", size))


def strange(fault: str) -> InputError:
    """What PyTorch never writes, and files made to harm do."""
    return InputError(
        say(
            "it holds what PyTorch never writes (%1), so reading stopped there and nothing of it ran. "
            "If you do not know where the file comes from, delete it.",
            fault,
        )
    )


def asks_for(name: str) -> InputError:
    """A name of Python's that no detector needs."""
    return InputError(
        say(
            "it asks for '%1', which no YOLO detector needs, so reading stopped there and nothing of it ran. "
            "If you do not know where the file comes from, delete it.",
            name,
        )
    )


def no_network(fault: str) -> InputError:
    """Layers that do not make a detector."""
    return InputError(
        say("its network cannot be built (%1): it is no YOLO detector, or it is damaged.", fault)
    )


def bare_weights() -> InputError:
    return InputError(
        say(
            "it holds bare weights without the network they belong to: "
            "pick the .pt file that Ultralytics saved."
        )
    )
