"""Names of accounts. A node carries the name of a profile, never a key: what looks like a key is refused."""

from __future__ import annotations

import re

from ..base.errors import InputError
from ..base.sentences import say

KEY_AS_PROFILE = say(
    "profile looks like an API key, and it would be saved with the workflow. Write the name of a profile, "
    "such as default; the key itself goes into Settings > Kleinod > API keys. If this workflow was saved or "
    "shared with the key in it, change the key."
)
_MAX_NAME = 40
_PROFILE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9 _.-]{{0,{_MAX_NAME - 1}}}")
_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_PREFIX = re.compile(r"(?i)(bearer\s|(sk|pk|rk|key|bfl|rw|runware|token)[-_](?=\S{12}))")


def check_profile(profile: object) -> str:
    """`profile`, if it can be a name. InputError, without repeating it, if it looks like a key instead."""
    if isinstance(profile, str) and looks_like_key(profile):
        raise InputError(KEY_AS_PROFILE)
    if not isinstance(profile, str) or not _PROFILE.fullmatch(profile):
        raise InputError(
            say("A profile's name is 1 to 40 letters, digits, spaces, dots, dashes or underscores.")
        )
    return profile


def looks_like_key(text: str) -> bool:
    """Whether a text is more likely a key than a name: too long for one, a UUID, a known prefix, or a word in
    which letters and digits change places as they do in random text.
    """
    text = text.strip()
    if len(text) > _MAX_NAME or _UUID.search(text) or _PREFIX.match(text):
        return True
    for word in re.split(r"[^A-Za-z0-9]+", text):
        changes = len(re.findall(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", word))
        mixed = len(re.findall(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[a-z])", word))
        if len(word) >= 8 and changes >= 3 or len(word) >= 16 and (changes or mixed >= 4) or len(word) >= 28:
            return True
    return False
