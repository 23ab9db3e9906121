"""What klein-nano knows, for whoever asks it for more: pure words, which tools/nano trained it on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ..base.sentences import Sentence, say

THINGS = (
    "smiling face", "angry face", "cool face", "sleepy face", "cat", "dog", "fox", "bear", "panda",
    "lion", "tiger", "cow", "pig", "frog", "monkey", "koala", "rabbit", "robot", "clown", "alien",
    "ghost", "skull", "pumpkin", "owl", "red apple", "green apple", "lemon", "banana", "watermelon",
    "strawberry", "pineapple", "grapes", "tomato", "eggplant", "carrot", "mushroom", "pizza", "burger",
    "donut", "cake", "tree", "cactus", "sunflower", "rose", "star", "moon", "cloud", "fire", "snowman",
    "rainbow", "red heart", "blue car", "bus", "rocket", "sailboat", "house", "soccer ball",
    "basketball", "guitar", "gift", "balloon", "umbrella", "bell", "crown",
)  # fmt: skip
COLOURS = ("white", "red", "orange", "yellow", "green", "blue", "purple", "pink")
LORA_WORDS = ("ink", "penguin")  # what the two LoRAs that come with it add
MAX_WORDS = 6  # named on the node; more are counted

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")


def find_unknown_words(text: str, is_known: Callable[[str], bool]) -> list[str]:
    """Words of a prompt, each once and in its order, of which klein-nano has no picture."""
    return [
        word
        for word in dict.fromkeys(_WORD.findall(text))
        if word.lower() not in LORA_WORDS and not is_known(word)
    ]


def describe_unknown(field: str, words: Iterable[str]) -> list[Sentence]:
    """The sentence for the node and for info; none where every word is known."""
    words = list(words)
    if not words:
        return []
    named = ", ".join(f'"{word}"' for word in words[:MAX_WORDS])
    if len(words) > MAX_WORDS:
        named = say("%1 and %2 more", named, len(words) - MAX_WORDS)
    return [
        say(
            "%1: klein-nano, the small model that is built in, does not know %2. It draws %3 things on %4 "
            'colours, for example "a fox on a blue background" or "a rocket next to a star on a purple '
            'background". For everything else choose FLUX.2 [klein] in Klein Loader.',
            field,
            named,
            len(THINGS),
            len(COLOURS),
        )
    ]


def describe_world() -> str:
    """All that klein-nano draws."""
    return f"klein-nano draws {', '.join(THINGS)}; on {', '.join(COLOURS)}."
