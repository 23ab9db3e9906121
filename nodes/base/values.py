"""Values that travel between Kleinod's nodes.

Frozen dataclasses, validated when built, free of ComfyUI. The same value feeds a local node and its remote
twin, so each field keeps the API's name, range and default where one exists. Errors are sentences for
artists.

Conventions everywhere in the pack: IMAGE `[B, H, W, C]` float32 in 0..1, MASK `[B, H, W]`, LATENT samples
`[B, 128, H/16, W/16]`. References, which hold pictures, are defined in `base/references.py`, the dials of
acceleration in `base/acceleration.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .acceleration import ACCELERATION_LEVELS as ACCELERATION_LEVELS
from .acceleration import API_LEVELS as API_LEVELS
from .acceleration import HIGHER_REUSES_MORE as HIGHER_REUSES_MORE
from .acceleration import LOWER_REUSES_MORE as LOWER_REUSES_MORE
from .acceleration import Acceleration as Acceleration
from .acceleration import Calibration as Calibration
from .errors import InputError
from .fields import Field, to_api
from .flux2 import CELL, MAX_SIZE, MIN_SIZE
from .references import Reference as Reference
from .references import References as References
from .sentences import say

# --- LoRAs

BOTH_STAGES, HIGH_STAGE, LOW_STAGE = "both", "high", "low"
LORA_STAGES = (BOTH_STAGES, HIGH_STAGE, LOW_STAGE)
SHARE_OF_STEPS, SIGMA = "share of steps", "sigma"
BOUNDARY_UNITS = (SHARE_OF_STEPS, SIGMA)

# The rows of a LoRA, as the plain widgets of Klein LoRA Stack and as Runware's `lora` spell them.
LORA_WEIGHT = Field(
    "weight",
    1.0,
    "Weight of the LoRA picked above. 0 leaves the file unread, below 0 steers away.",
    api="weight",
    low=-4,
    high=4,
    step=0.01,
)
LORA_STAGE = Field(
    "stage",
    BOTH_STAGES,
    "Stage of the LoRA picked above. high: only the early steps, where composition forms. low: only the late "
    "ones, where detail forms.",
    api="transformer",
    choices=LORA_STAGES,
)
BOUNDARY_UNIT = Field(
    "stage_boundary",
    SHARE_OF_STEPS,
    "How boundary_at is meant. share of steps: the first part of each run's steps is the high stage. sigma: "
    "steps at that noise level or above are.",
    choices=BOUNDARY_UNITS,
    advanced=True,
)
BOUNDARY_AT = Field(
    "boundary_at",
    0.5,
    "Where high ends and low begins. 0.5 of the steps by default; as a sigma, 0.9 is what two-stage models "
    "use.",
    low=0,
    high=1,
    step=0.01,
    advanced=True,
)
AIR_EXAMPLE = "civitai:123@456"


@dataclass(frozen=True)
class StageBoundary:
    """Where a run turns from its high stage (coarse, early) into its low one (fine, late).

    unit "share of steps": the first `at` of a run's steps are high. unit "sigma": steps at `at` or noisier
    are high.
    """

    unit: str = BOUNDARY_UNIT.default
    at: float = BOUNDARY_AT.default

    def __post_init__(self) -> None:
        BOUNDARY_UNIT.check(self.unit)
        BOUNDARY_AT.check(self.at)


@dataclass(frozen=True)
class LoraRow:
    """One LoRA of a stack. `weight` and `stage` (`transformer` there) are Runware's, with its range and
    defaults.

    file: its name below models/loras, or empty for a LoRA that exists at Runware only. sha256: of the whole
    file, lower case, empty while unknown. air: the id at Runware, empty where it is not there. boundary
    counts for stages high and low.
    """

    file: str = ""
    weight: float = LORA_WEIGHT.default
    stage: str = LORA_STAGE.default
    enabled: bool = True
    sha256: str = ""
    air: str = ""
    boundary: StageBoundary = StageBoundary()

    def __post_init__(self) -> None:
        if not self.file and not self.air:
            raise InputError(
                say(
                    "A LoRA row names no file and no AIR id. Write a file of models/loras into it, "
                    "or remove it."
                )
            )
        LORA_WEIGHT.check(self.weight, f"The weight of LoRA '{self.label}'")
        LORA_STAGE.check(self.stage, f"The stage of LoRA '{self.label}'")
        if self.sha256 and (len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef")):
            raise InputError(
                say(
                    "The sha256 of LoRA '%1' is '%2', but it must be 64 digits 0-9 a-f. "
                    "Remove it: Klein LoRA Stack finds it out again.",
                    self.label,
                    self.sha256,
                )
            )
        if self.air and (":" not in self.air or any(character.isspace() for character in self.air)):
            raise InputError(
                say(
                    "The AIR id of LoRA '%1' is '%2', but it must look like %3. "
                    "Copy it from the LoRA's page at Runware.",
                    self.label,
                    self.air,
                    AIR_EXAMPLE,
                )
            )

    @property
    def label(self) -> str:
        """What sentences call it."""
        return self.file or self.air

    @property
    def acts(self) -> bool:
        """Whether it changes anything: rows switched off or of weight 0 are never read."""
        return self.enabled and self.weight != 0


@dataclass(frozen=True)
class Loras:
    """The rows of one or several Klein LoRA Stacks, in order."""

    rows: tuple[LoraRow, ...] = ()

    def to_runware(self) -> list[dict[str, Any]]:
        """`lora` as the request spells it. Raises ValueError naming the row that only exists on this
        machine.
        """
        request: list[dict[str, Any]] = []
        for number, row in enumerate(self.rows, 1):
            if not row.acts:
                continue
            if not row.air:
                raise InputError(
                    say(
                        "Row %1 of loras, '%2', has no AIR id, and Runware cannot see files of "
                        "this computer. Write the LoRA's AIR id (like %3) into its row of Klein "
                        "LoRA Stack, or switch the row off.",
                        number,
                        row.file,
                        AIR_EXAMPLE,
                    )
                )
            entry: dict[str, Any] = {"model": row.air, LORA_WEIGHT.api: row.weight}
            request.append(entry if row.stage == BOTH_STAGES else entry | {LORA_STAGE.api: row.stage})
        return request


# --- Faces

MASK_PIXELS = "pixels"
MASK_PERCENT = "percent of the face"
MASK_UNITS = (MASK_PIXELS, MASK_PERCENT)
_BY_PRESET = " Set by the preset, unless that is custom."

FACE_FIELDS = (
    Field(
        "confidence",
        0.9,
        "How sure the detector must be of a face. 0.9 leaves out many real ones." + _BY_PRESET,
        api="confidence",
        low=0,
        high=1,
        step=0.01,
    ),
    Field(
        "mask_padding",
        5,
        "How far beyond the face anything may change, in mask_unit. Outside of it not a bit changes."
        + _BY_PRESET,
        api="maskPadding",
        low=0,
        high=20,
    ),
    Field(
        "mask_blur",
        5,
        "Width of the transition from old to new, in mask_unit. It runs inwards from the edge of the mask."
        + _BY_PRESET,
        api="maskBlur",
        low=0,
        high=100,
    ),
    Field(
        "strength",
        0.3,
        "How much of a face is painted anew. As a noise level (see strength_mode of Klein Face Refiner) 0.3 "
        "sharpens, 0.55 is what 0.4 is on Stable Diffusion, 1 paints from nothing but the reference. 0 only "
        "detects." + _BY_PRESET,
        api="strength",
        low=0,
        high=1,
        step=0.01,
    ),
    Field(
        "steps",
        20,
        "Steps for a face. Base 20 to 50, distilled 4." + _BY_PRESET,
        api="steps",
        low=1,
        high=100,
    ),
    Field(
        "guidance",
        8.0,
        "Runware's CFGScale. On Klein Base about 4, distilled 1; 8 burns colours. 1 and less run without the "
        "negative prompt." + _BY_PRESET,
        api="CFGScale",
        low=0,
        high=50,
        step=0.1,
    ),
    Field(
        "positive_prompt",
        "",
        "What every face shows. Empty: the prompt of the picture. The face as it is counts as image 1, "
        "references follow as image 2 and so on.",
        api="positivePrompt",
        multiline=True,
    ),
    Field(
        "negative_prompt",
        "",
        "What faces should not show. Empty: the negative prompt of the picture.",
        api="negativePrompt",
        multiline=True,
    ),
    Field(
        "inpaint_size",
        1024,
        "Side in pixels at which a face with its surroundings is painted. A face already larger is painted "
        "as large as it is. Not sent to Runware, whose API for this model lacks it.",
        low=MIN_SIZE,
        high=MAX_SIZE,
        multiple=CELL,
    ),
    Field(
        "mask_unit",
        MASK_PIXELS,
        "What mask_padding and mask_blur count on this computer: pixels, as the API does, or percent of the "
        "face's longer side, so that large and small faces get alike." + _BY_PRESET,
        choices=MASK_UNITS,
        optional=True,
    ),
    Field(
        "context",
        2.0,
        "Side of the square that is painted, in sides of the face: how much of hair, neck and light the "
        "model sees. More of it leaves fewer pixels for the face. Local only.",
        low=1.2,
        high=6,
        step=0.05,
        optional=True,
        advanced=True,
    ),
    Field(
        "max_upscale",
        8.0,
        "A face is never enlarged more than this; smaller faces are painted below inpaint_size, so that "
        "nothing is invented from a few pixels. Local only.",
        low=1,
        high=16,
        step=0.5,
        optional=True,
        advanced=True,
    ),
    Field(
        "colour_match",
        1.0,
        "Takes back the tint that painting adds, as measured in the ring around the face. 0 is off. Local "
        "only.",
        low=0,
        high=1,
        step=0.05,
        optional=True,
        advanced=True,
    ),
)
_FACE_DEFAULTS = {row.name: row.default for row in FACE_FIELDS}


@dataclass(frozen=True)
class FaceRefinement:
    """How every found face is painted anew.

    The first eight fields are Runware's `advancedFeatures.ultralytics`, and inpaint_size that of its own
    ComfyUI node, with their ranges and defaults. Locally: confidence is the detector's least score.
    mask_padding is how far beyond the face anything may change, mask_blur the width of the transition, which
    runs inwards from there; both are counted in mask_unit. strength is read by the refiner's strength_mode.
    guidance is CFGScale; 1 and less run no negative pass. Empty prompts inherit the main prompt.
    inpaint_size: side in pixels at which a face's surroundings are painted.

    The rest is local. context: side of the square around a face, in sides of the face. max_upscale: a smaller
    face is painted below inpaint_size instead of from nothing. colour_match: 0 (off) to 1.
    """

    confidence: float = _FACE_DEFAULTS["confidence"]
    mask_padding: int = _FACE_DEFAULTS["mask_padding"]
    mask_blur: int = _FACE_DEFAULTS["mask_blur"]
    strength: float = _FACE_DEFAULTS["strength"]
    steps: int = _FACE_DEFAULTS["steps"]
    guidance: float = _FACE_DEFAULTS["guidance"]
    positive_prompt: str = _FACE_DEFAULTS["positive_prompt"]
    negative_prompt: str = _FACE_DEFAULTS["negative_prompt"]
    inpaint_size: int = _FACE_DEFAULTS["inpaint_size"]
    mask_unit: str = _FACE_DEFAULTS["mask_unit"]
    context: float = _FACE_DEFAULTS["context"]
    max_upscale: float = _FACE_DEFAULTS["max_upscale"]
    colour_match: float = _FACE_DEFAULTS["colour_match"]

    def __post_init__(self) -> None:
        # By the names of the node's widgets, where artists set them.
        for row in FACE_FIELDS:
            row.check(getattr(self, row.name), row.name)

    def to_runware(self) -> dict[str, Any]:
        """The object `advancedFeatures.ultralytics` of a request; blank prompts stay out of it."""
        request = to_api(self, FACE_FIELDS)
        return {name: value for name, value in request.items() if not isinstance(value, str) or value.strip()}
