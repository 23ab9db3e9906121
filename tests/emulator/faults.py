"""Faults a test may order, each taken off the list when it strikes.

submit    accept_then_503 accept_then_html accept_then_drop drop_before_accept refuse_503 refuse_html
refuse_429
          refuse_500_error refuse_401 refuse_402 refuse_403 redirect accept_slow_drip accept_then_reset
          error_in_200 foreign_polling_url no_polling_url accept_huge_answer
job       item_error item_nsfw status_error safety_error request_moderated content_moderated failed_status
          never_finish forget
poll      poll_503 poll_html poll_429 poll_drop poll_empty poll_not_found poll_redirect unknown_status
          ready_without_sample duplicate_items poll_top_level_error poll_null
download  expired oversize lying_length short_length bomb svg html_as_image download_503 download_drop
          download_redirect slow_drip empty_image truncated_png foreign_sample
picture   rgba palette exif other_size grey16
"""

from __future__ import annotations

import re
import threading
from collections import Counter

KNOWN = frozenset(re.findall(r"[a-z0-9_]+", __doc__.partition("submit ")[2])) - {
    "job",
    "poll",
    "download",
    "picture",
}


class Faults:
    """How often each fault is still to strike. Thread-safe."""

    def __init__(self) -> None:
        self._left: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.struck: Counter[str] = Counter()

    def order(self, name: str, times: int = 1) -> None:
        if name not in KNOWN:
            raise ValueError(f"Unknown fault {name!r}; known: {', '.join(sorted(KNOWN))}")
        with self._lock:
            self._left[name] += times

    def take(self, name: str) -> bool:
        assert name in KNOWN, name
        with self._lock:
            if self._left[name] <= 0:
                return False
            self._left[name] -= 1
            self.struck[name] += 1
            return True

    def clear(self) -> None:
        with self._lock:
            self._left.clear()
            self.struck.clear()
