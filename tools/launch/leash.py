"""Runs a command that must not outlive who started it: `leash.py FOLDER -- COMMAND ...`, its stdin a pipe.

When the pipe closes, because its owner closed it or was killed, the command is ended, politely and then
firmly, and FOLDER is removed, if one was named. A process of its own, since ComfyUI does not watch its stdin.
Killed itself, on Linux it takes the command along: Ray kills the children of a worker that died, and no
grandchildren.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1
PATIENCE = 10


def main(arguments):
    folder, command = arguments[0], arguments[2:]
    if os.name != "nt":
        # The group's polite signal is for the command; this process ends after it.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    prepare = None if os.name == "nt" else _prepare
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=prepare)

    closed = threading.Event()

    def watch():
        while sys.stdin.buffer.read(1):
            pass
        closed.set()
        child.terminate()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        if os.name == "nt":
            os._exit(1)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = child.wait()
    if closed.is_set():
        watcher.join()  # it has still to tidy up
    return code


def _prepare():
    """In the child, before the command."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
