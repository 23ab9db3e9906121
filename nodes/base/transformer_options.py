"""Keys under which our rooms leave something for each other in ComfyUI's `transformer_options` of a run."""

MODEL_EDGES = "kleinod_model_edges"
"""Sigmas at which the model itself changes: a LoRA of one stage starts or stops there. A tuple of floats."""
