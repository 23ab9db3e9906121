"""An honest stand-in for Runware and BFL on loopback, which counts every job it accepts and bills.

Its honesty is proven by the vendors' own clients (`tests/remote/test_vendor_clients.py`).
"""

from .server import Emulator

__all__ = ["Emulator"]
