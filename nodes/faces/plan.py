"""From found faces to work: crops, masks and seeds, and which faces may be painted at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..base.fields import Field, check_fields
from ..base.flux2 import MAX_SEED
from ..base.values import FaceRefinement
from ..regions.geometry import longer_side, plan_crop
from ..regions.masks import draw_masks, reach_of
from ..regions.prompt_lines import PromptLines
from ..regions.request import BATCH_LIMIT, STRENGTH_MODE, PaintRequest
from ..regions.seeds import seed_of_region
from ..regions.waves import Region
from .choice import FaceFilter, choose_faces, reading_ranks
from .detection import Face
from .shapes import edge_of, shape_of

SEED = Field(
    "seed",
    0,
    "Where the noise comes from. Every face of every picture gets a seed of its own from it, which order, "
    "limits and batches do not change.",
    low=0,
    high=MAX_SEED,
)

SAME_SEED = Field(
    "same_seed",
    False,
    "Give the first face of every picture the same seed, the second one too, and so on: for the frames of a "
    "sequence, whose faces then change alike. Off: every face of every picture has a seed of its own.",
    optional=True,
    advanced=True,
)


@dataclass(frozen=True)
class RefineRequest:
    """What an artist asks of one run of Klein Face Refiner. Raises InputError in their words."""

    settings: FaceRefinement
    filter: FaceFilter = FaceFilter()
    prompts: PromptLines = PromptLines()
    seed: int = SEED.default
    strength_mode: str = STRENGTH_MODE.default
    batch_limit: int = BATCH_LIMIT.default
    same_seed: bool = SAME_SEED.default

    def __post_init__(self) -> None:
        check_fields(self, (SEED, STRENGTH_MODE, BATCH_LIMIT))

    @property
    def painting(self) -> PaintRequest:
        """How each face is painted. The API's guidance begins at 0; there is none below 1."""
        settings = self.settings
        return PaintRequest(
            settings.strength,
            settings.steps,
            max(1.0, settings.guidance),
            settings.colour_match,
            self.strength_mode,
            self.batch_limit,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class FaceRegion(Region):
    """One face to paint."""

    face: Face


@dataclass(frozen=True)
class LeftOut:
    """A face that is not painted, and why."""

    picture: int
    face: Face
    reason: str


@dataclass(frozen=True)
class FacePlan:
    regions: tuple[FaceRegion, ...]
    left_out: tuple[LeftOut, ...]


def plan_faces(found: Sequence[Sequence[Face]], picture: tuple[int, int], request: RefineRequest) -> FacePlan:
    """The regions of all pictures of (width, height), picture by picture in the order asked for."""
    regions: list[FaceRegion] = []
    left_out: list[LeftOut] = []
    for index, faces in enumerate(found):
        choice = choose_faces(faces, picture, request.filter)
        left_out += [LeftOut(index, faces[i], reason) for i, reason in choice.left_out.items()]
        ranks = reading_ranks(faces)
        for place, i in enumerate(choice.chosen):
            planned = _plan_face(index, place, faces[i], ranks[i], picture, request)
            if isinstance(planned, FaceRegion):
                regions.append(planned)
            else:
                left_out.append(planned)
    return FacePlan(tuple(regions), tuple(left_out))


def _plan_face(
    index: int, place: int, face: Face, rank: int, picture: tuple[int, int], request: RefineRequest
) -> FaceRegion | LeftOut:
    settings = request.settings
    if request.prompts.skips(place):
        return LeftOut(index, face, "[SKIP] in face_prompts")
    edge = edge_of(settings, face.box)
    reach = reach_of(face.box, edge)
    crop = plan_crop(face.box, reach, picture, settings.inpaint_size, settings.context, settings.max_upscale)
    if crop is None:
        return LeftOut(index, face, f"too small to be enlarged {settings.max_upscale:g} times (max_upscale)")
    return FaceRegion(
        picture=index,
        number=place + 1,
        face=face,
        crop=crop,
        masks=draw_masks(shape_of(face, crop), longer_side(face.box), crop, edge, picture),
        reach=reach,
        seed=seed_of_region(request.seed, 0 if request.same_seed else index, rank),
        prompt=request.prompts.for_region(place, settings.positive_prompt),
    )
