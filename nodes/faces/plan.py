"""From found faces to work: crops, masks and seeds, and which faces may be painted at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..base.errors import InputError
from ..base.flux2 import MAX_SEED
from ..base.values import FaceRefinement
from ..sampling.schedule import MU_AUTO, NOISE_LEVEL, STRENGTH_MODES, Schedule, build_schedule
from .choice import Wanted, choose_faces, reading_ranks
from .detection import Face
from .geometry import CELL, Box, Crop, overlap, plan_crop
from .masks import Masks, Softness, draw_masks, reach_of
from .prompts import FacePrompts
from .seeds import seed_of_face

BATCH_DEFAULT, BATCH_MAX = 4, 64


@dataclass(frozen=True)
class RefineRequest:
    """What an artist asks of one run of Klein Face Refiner. Raises ValueError in their words."""

    settings: FaceRefinement
    wanted: Wanted = Wanted()
    prompts: FacePrompts = FacePrompts()
    seed: int = 0
    strength_mode: str = NOISE_LEVEL
    batch_limit: int = BATCH_DEFAULT

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed is {self.seed}, but must lie between 0 and {MAX_SEED}.")
        if self.strength_mode not in STRENGTH_MODES:
            raise InputError(
                f"strength_mode is {self.strength_mode!r}, but must be one of: {', '.join(STRENGTH_MODES)}."
            )
        if not 1 <= self.batch_limit <= BATCH_MAX:
            raise InputError(f"batch_limit is {self.batch_limit}, but must lie between 1 and {BATCH_MAX}.")

    @property
    def guidance(self) -> float:
        """The API's scale begins at 0; there is no guidance below 1."""
        return max(1.0, self.settings.guidance)

    @property
    def steps(self) -> int:
        """Model calls for each face, guidance not counted."""
        settings = self.settings
        if self.strength_mode == NOISE_LEVEL:
            return settings.steps
        return max(1, round(settings.steps * settings.strength))

    def schedule(self, target: tuple[int, int]) -> Schedule:
        """Sigmas for a crop painted at `target` (width, height)."""
        tokens = target[0] * target[1] // CELL**2
        settings = self.settings
        return build_schedule(
            "native", settings.steps, tokens, MU_AUTO, settings.strength, self.strength_mode
        )


@dataclass(frozen=True, eq=False)
class Job:
    """One face to paint.

    picture: index in the batch. number: its place in the order, from 1. prompt: its own, None for the shared.
    """

    picture: int
    number: int
    face: Face
    crop: Crop
    masks: Masks
    reach: Box
    seed: int
    prompt: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """A face that is not painted, and why."""

    picture: int
    face: Face
    reason: str


@dataclass(frozen=True)
class Plan:
    jobs: tuple[Job, ...]
    left_out: tuple[LeftOut, ...]


def plan_faces(found: Sequence[Sequence[Face]], picture: tuple[int, int], request: RefineRequest) -> Plan:
    """The jobs of all pictures of (width, height), picture by picture in the order asked for."""
    jobs: list[Job] = []
    left_out: list[LeftOut] = []
    for index, faces in enumerate(found):
        choice = choose_faces(faces, picture, request.wanted)
        left_out += [LeftOut(index, faces[i], reason) for i, reason in choice.left_out.items()]
        ranks = reading_ranks(faces)
        for place, i in enumerate(choice.chosen):
            job = _plan_face(index, place, faces[i], ranks[i], picture, request)
            if isinstance(job, Job):
                jobs.append(job)
            else:
                left_out.append(job)
    return Plan(tuple(jobs), tuple(left_out))


def _plan_face(
    index: int, place: int, face: Face, rank: int, picture: tuple[int, int], request: RefineRequest
) -> Job | LeftOut:
    settings = request.settings
    if request.prompts.skips(place):
        return LeftOut(index, face, "[SKIP] in face_prompts")
    softness = Softness.of(settings, face.box)
    reach = reach_of(face.box, softness)
    crop = plan_crop(face.box, reach, picture, settings.inpaint_size, settings.context, settings.max_upscale)
    if crop is None:
        return LeftOut(index, face, f"too small to be enlarged {settings.max_upscale:g} times (max_upscale)")
    return Job(
        picture=index,
        number=place + 1,
        face=face,
        crop=crop,
        masks=draw_masks(face, crop, softness, picture),
        reach=reach,
        seed=seed_of_face(request.seed, index, rank),
        prompt=request.prompts.for_face(place, settings.positive_prompt),
    )


def order_waves(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs that may run side by side; a face that touches an earlier one waits for it, to see it painted."""
    waves: list[list[Job]] = []
    placed: list[tuple[Job, int]] = []
    for job in jobs:
        touching = [
            wave for other, wave in placed if other.picture == job.picture and overlap(other.reach, job.reach)
        ]
        wave = max(touching, default=-1) + 1
        if wave == len(waves):
            waves.append([])
        waves[wave].append(job)
        placed.append((job, wave))
    return waves


def group_by_size(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs of equal target size, which one batch can hold; groups and jobs in their order."""
    groups: dict[tuple[int, int], list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.crop.target, []).append(job)
    return list(groups.values())
