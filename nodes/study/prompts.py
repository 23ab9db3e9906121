"""What Klein Calibrate paints where it is given no prompts: pictures that differ."""

from __future__ import annotations

PROMPTS = (
    "a red fox standing in fresh snow, morning light",
    "portrait of an old fisherman with a white beard, soft window light",
    "a street market at night in the rain, neon signs reflected in puddles",
    "a bowl of ripe peaches on a blue tablecloth, oil painting",
    "a mountain lake under a clear sky, wide view",
    "a poster with the words OPEN TODAY in large letters",
    "a glass house among tall pines, architectural photograph",
    "a child's drawing of a yellow rocket flying past the moon",
)
NANO_PROMPTS = (
    "a fox on a white background",
    "a red apple on a blue background",
    "a pumpkin on a green background",
    "a frog on a yellow background",
    "a lion on a red background",
    "a panda on an orange background",
    "a tiger on a purple background",
    "a rocket on a pink background",
)
"""In klein-nano's own words."""


def list_prompts(text: str, own: tuple[str, ...], pictures: int) -> list[str]:
    """A prompt a line of `text`, else `own`: at least `pictures`, from the beginning again where too few."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wanted = max(pictures, len(lines))
    chosen = lines or own
    return [chosen[i % len(chosen)] for i in range(wanted)]
