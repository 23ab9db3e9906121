"""What is seen while a run goes on: the bar, and the picture as it forms beside those that are done.

ComfyUI draws previews only where the page's *Live preview method* or the command line asks for them, and most
users never find either. Klein draws them by default, with ComfyUI's own cheapest method (a linear mix of the
latent's channels, some milliseconds a step). Not where the user has chosen none, and not for a single picture
so small that it is done before one looks.
"""

from __future__ import annotations

import sys
from typing import Any

from PIL import Image
from torch import Tensor

from ..base import seams
from .contact_sheet import ContactSheet

comfy = seams.modules("comfy.utils")
latent_preview = seams.find("latent_preview")

get_executing_context = seams.find("comfy_execution.utils:get_executing_context")

SMALL_CELLS = 256
"""Latent cells of a picture (256 x 256 pixels) from which on a single one is drawn unasked."""
SHEET_SIDE = 1024
"""Pixels of the longer side of a preview of several pictures; ComfyUI's own previews are 512."""


class RunProgress:
    """One bar over `total` steps, with previews; each may raise ComfyUI's interrupt.

    results: pictures that the run makes one after another. From two on the preview is a sheet with a place
    for each, filled with the pictures themselves as they are done.
    """

    def __init__(self, model: Any, total: int, results: int = 1) -> None:
        self._previewer, self._unasked = choose_previewer(model)
        self._bar = comfy.utils.ProgressBar(total)
        self._total = total
        self._sheet = ContactSheet(results, SHEET_SIDE) if results > 1 else None

    def show_step(self, done: int, x0: Tensor, index: int = 0) -> None:
        """`done` of all steps are run; x0 `[B, C, h, w]` is the latent of result `index` so far."""
        preview = None
        small = self._sheet is None and x0.shape[-2] * x0.shape[-1] < SMALL_CELLS
        if self._previewer is not None and not (self._unasked and small):
            preview = self._previewer.decode_latent_to_preview_image("JPEG", x0)
            if self._sheet is not None:
                preview = ("JPEG", self._sheet.draw(index, preview[1]), SHEET_SIDE)
        self._bar.update_absolute(done, self._total, preview)

    def show_finished(self, done: int, picture: Tensor, index: int) -> None:
        """Result `index` is done: picture `[H, W, 3]` in 0..1 keeps its place on the sheet."""
        if self._previewer is None or self._sheet is None:
            return
        self._sheet.keep(index, to_image(picture))
        self._bar.update_absolute(done, self._total, ("JPEG", self._sheet.draw(), SHEET_SIDE))


def to_image(picture: Tensor) -> Image.Image:
    return Image.fromarray((picture.detach().cpu().float().clamp(0, 1) * 255).byte().numpy())


def choose_previewer(model: Any) -> tuple[Any, bool]:
    """ComfyUI's previewer of the method in force, else its cheapest; None for no previews. And whether that
    is our choice alone."""
    latent_format = model.model.latent_format
    previewer = latent_preview.get_previewer(model.load_device, latent_format)
    if previewer is not None or latent_format.latent_rgb_factors is None or not _wants_previews():
        return previewer, False
    ours = latent_preview.Latent2RGBPreviewer(
        latent_format.latent_rgb_factors,
        latent_format.latent_rgb_factors_bias,
        latent_format.latent_rgb_factors_reshape,
    )
    return ours, True


def _wants_previews() -> bool:
    """Whether someone looks, and has not chosen "none" in the page's settings or on the command line."""
    if seams.missing(seams.PREVIEWS) or any(word.startswith("--preview-method") for word in sys.argv):
        return False
    server = seams.find_server()
    context = get_executing_context()
    if server is None or context is None or server.client_id is None:
        return False
    # ComfyUI hands nodes no setting of the page; its queue holds what came with the prompt.
    running = server.prompt_queue.get_current_queue_volatile()[0]
    chosen = next((item[3].get("preview_method") for item in running if item[1] == context.prompt_id), None)
    return chosen != "none"
