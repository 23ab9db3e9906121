"""Environment variables of the remote nodes. Nothing is ever written to them.

Each service names its own: the key's, `<KEY VARIABLE>_<PROFILE>` for any profile but "default", and the one
that puts an emulator of this machine in the service's place.
`KLEINOD_ASK_FOR_CODE`   "1" asks every browser for the code of the console: for a proxy that hides itself
"""

from __future__ import annotations

import os
import re


def read_variable(name: str) -> str | None:
    """The value of a variable, or None where it is unset or blank."""
    return os.environ.get(name, "").strip() or None


def name_key_variable(variable: str, profile: str) -> str:
    """The variable that holds the key of a profile."""
    return variable if profile == "default" else f"{variable}_{re.sub(r'[^A-Z0-9]', '_', profile.upper())}"


def read_address(variable: str) -> str | None:
    """The address that replaces a service's own, or None."""
    address = read_variable(variable)
    return address.rstrip("/") if address else None


def asks_for_code() -> bool:
    """Whether every browser has to show the code of the console, this machine's, too."""
    return read_variable("KLEINOD_ASK_FOR_CODE") == "1"
