"""Kleinod: FLUX.2 [klein] in ComfyUI, on the user's own GPU and through the Runware and BFL APIs."""

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./js"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
