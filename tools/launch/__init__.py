"""What `run.py` does, in standard-library Python: set up, start ComfyUI, talk to it, run workflows.

The tests drive the same server and client classes, so the two commands are what is tested.
"""


class LaunchError(Exception):
    """Something the reader can put right; its text is the whole message, with no traceback around it."""
