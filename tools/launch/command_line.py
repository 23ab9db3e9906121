"""The commands of `run.py`."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

from . import LaunchError
from .chromium import prepare_chromium
from .cluster import make_command, make_variables
from .console import Progress, format_seconds
from .emulator import run_emulator
from .environment import ROOT, RUNTIME, Environment, prepare
from .git import prepare_git
from .server import Server, server_variables
from .weights import describe_weights, make_folders
from .workflows import run_all

OUTPUT = ROOT / "output"

_OVERVIEW = """\
python3 run.py                     set everything up, start ComfyUI with Kleinod in it, run the shipped
                                   workflows; the pictures land in output/
python3 run.py serve [--port N]    the same set-up, then ComfyUI stays open for your browser
python3 run.py api [--port N]      the same set-up, then requests for Runware, BFL and OpenAI are answered
python3 run.py cluster [--workers N]   the same API on Ray Serve: one ComfyUI a GPU
python3 run.py test [ARGUMENTS]    all tests; ARGUMENTS go to pytest: -k NAME, -m "not browser", a path ...
python3 run.py test --quick        the pure part of them, tests/core, in less than a minute
python3 run.py bench NAME          one benchmark of tools/bench; --json FILE writes its rows for machines

--comfyui DIR (or COMFYUI_PATH)    on any of them: use your own ComfyUI and the Python that runs this command
--comfyui newest|older             on any of them: the newest ComfyUI to be had, or one older than we ask for
--device auto|cpu|gpu              on the first two: auto takes a CUDA or ROCm GPU where PyTorch finds one
"""


class Terminated(KeyboardInterrupt):
    """Somebody asked this process alone to end (SIGTERM); Ctrl-C reaches its children as well."""


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code; a foreseeable failure ends in a sentence."""
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument("--comfyui", default=os.environ.get("COMFYUI_PATH") or None)
    options, rest = common.parse_known_args(arguments)
    command = rest.pop(0) if rest and not rest[0].startswith("-") else "run"
    commands = {
        "run": _run,
        "serve": _serve,
        "api": _api,
        "cluster": _cluster,
        "test": _test,
        "bench": _bench,
    }
    if command not in commands or (command == "run" and {"-h", "--help"} & set(rest)):
        print(_OVERVIEW, end="")
        if command in commands:
            return 0
        print(f"\nThere is no command {command!r}.", file=sys.stderr)
        return 2
    # A polite kill must end the server that was started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        return commands[command](options.comfyui, rest)
    except LaunchError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"\nThe disk is full: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def _run(comfyui: str | None, rest: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="run.py", allow_abbrev=False)
    _add_device(parser)
    options = parser.parse_args(rest)
    environment = prepare(comfyui)
    log = RUNTIME / "logs" / "server.log"
    # A demonstration never spends money: the remote workflows meet the emulator, whatever keys are set.
    with (
        run_emulator(environment) as variables,
        Server(environment, output=OUTPUT, log=log, device=options.device, variables=variables) as server,
    ):
        _start(server)
        print("The remote workflows meet Kleinod's emulator on this machine: no key, no cost.", flush=True)
        failures = run_all(server.client, OUTPUT)
    if failures:
        print(f"\n{failures} of the workflows failed. ComfyUI's log: {log}", file=sys.stderr)
        return 1
    print("\nComfyUI in your browser, and where your own models go: python3 run.py serve")
    return 0


def _serve(comfyui: str | None, rest: list[str]) -> int:
    return _stay(comfyui, rest, "serve")


def _api(comfyui: str | None, rest: list[str]) -> int:
    """As serve, with the API on: the server itself tells its addresses and a first key."""
    return _stay(comfyui, rest, "api")


def _cluster(comfyui: str | None, rest: list[str]) -> int:
    """The same API, on as many ComfyUIs as there are GPUs, here and on machines that join."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--data", type=Path, default=_data_folder())
    options, rest = parser.parse_known_args(rest)
    environment = prepare(comfyui)
    data = options.data.expanduser().resolve()
    return _run_child(make_command(environment, data, rest), make_variables(environment, data))


def choose_api(host: str, stand_in: bool) -> tuple[dict[str, str], tuple[str, ...]]:
    """(variables, arguments for main.py) of a ComfyUI whose API answers, to others where `host` is not this
    machine's own.
    """
    variables = {"KLEINOD_API": "1"} | ({} if stand_in else {"KLEINOD_API_STAND_IN": "0"})
    if host in ("127.0.0.1", "localhost"):
        return variables, ()
    places = host if host in ("0.0.0.0", "::") else f"127.0.0.1,{host}"
    return variables | {"KLEINOD_API_REMOTE": "1"}, ("--listen", places)


def _stay(comfyui: str | None, rest: list[str], command: str) -> int:
    parser = argparse.ArgumentParser(
        prog=f"run.py {command}", allow_abbrev=False, epilog="Arguments after -- go to ComfyUI's main.py."
    )
    parser.add_argument("--port", type=int, default=8188, help="default 8188, ComfyUI's own")
    if command == "api":
        parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 answers other machines, too")
        parser.add_argument(
            "--no-stand-in", action="store_true", help="refuse requests where there are no Klein weights"
        )
    parser.add_argument(
        "--data", type=Path, default=_data_folder(), help="models, input, user files; %(default)s"
    )
    _add_device(parser)
    end = rest.index("--") if "--" in rest else len(rest)
    own, foreign = rest[:end], rest[end + 1 :]
    options = parser.parse_args(own)
    environment = prepare(comfyui)
    base = options.data.expanduser().resolve()
    variables, more = choose_api(options.host, not options.no_stand_in) if command == "api" else ({}, ())
    server = Server(
        environment,
        base=base,
        port=options.port,
        output=OUTPUT,
        device=options.device,
        arguments=(*more, *foreign),
        log=None,
        variables=variables,
    )
    models = [base / "models"] if environment.own else [base / "models", environment.comfyui / "models"]
    make_folders(models[0])
    with server:
        _start(server)
        print(f"\n{describe_weights(models)}\n\nInputs and settings: {base}\nPictures: {OUTPUT}")
        print(f"Kleinod is ready: {server.url}   (Ctrl-C ends it)", flush=True)
        return server.wait()


def _test(comfyui: str | None, rest: list[str]) -> int:
    environment = prepare(comfyui, tests=True)
    variables = _tool_variables(environment)
    variables.setdefault("OMP_NUM_THREADS", "1")
    if asks_for_git(rest) and (folder := prepare_git(RUNTIME)):
        variables["PATH"] = f"{folder}{os.pathsep}{variables.get('PATH', '')}"
    if asks_for_browser(rest):
        variables["KLEINOD_CHROMIUM"] = prepare_chromium(environment.python)
    return _run_child([str(environment.python), "-m", "pytest", *choose_tests(rest)], variables)


def asks_for_browser(arguments: list[str]) -> bool:
    """Whether tests that drive a browser may be among those that `run.py test` is asked for."""
    if "--quick" in arguments or "not browser" in " ".join(arguments):
        return False
    return _chooses(arguments, "tests/browser", "tests/server")


def asks_for_git(arguments: list[str]) -> bool:
    return "--quick" not in arguments and _chooses(arguments, "tests/contract", "tests/server")


def _chooses(arguments: list[str], *folders: str) -> bool:
    """Whether tests of one of the folders may be among those chosen by path; without a path, all are."""
    paths = [argument.rstrip("/") for argument in arguments if argument.startswith("tests")]
    return not paths or any(path == "tests" or path.startswith(folders) for path in paths)


def choose_tests(arguments: list[str]) -> list[str]:
    """What pytest gets for the `arguments` of `run.py test`.

    One worker has ComfyUI and the browser: `pytest_xdist_make_scheduler` in tests/conftest.py. A choice of
    tests runs in one process: two would load torch twice to save nothing.
    """
    rest = [argument for argument in arguments if argument != "--quick"]
    quick = ["tests/core"] if rest != arguments else []
    many = all(argument.startswith(("--durations", "-q", "-v", "-x")) for argument in rest)
    workers = ["-n", "2", "--no-loadscope-reorder"] if many and (os.cpu_count() or 1) > 1 else []
    return [*workers, *quick, *rest]


def _bench(comfyui: str | None, rest: list[str]) -> int:
    environment = prepare(comfyui)
    return _run_child([str(environment.python), "-m", "tools.bench", *rest], _tool_variables(environment))


def _start(server: Server) -> None:
    with Progress("ComfyUI") as step:
        server.start(lambda seconds: step.update("starting"))
        step.finish(f"answers on {server.url} after {format_seconds(step.seconds)}")


def _tool_variables(environment: Environment) -> dict[str, str]:
    variables = server_variables(environment.packages) | {"COMFYUI_PATH": str(environment.comfyui)}
    if "OMP_NUM_THREADS" not in os.environ:
        del variables["OMP_NUM_THREADS"]
    return variables


def _run_child(command: list[str], variables: dict[str, str]) -> int:
    """Run a command to its end in the repository; an interrupt lets it tidy up before it is ended."""
    child = subprocess.Popen(command, cwd=ROOT, env=variables)
    try:
        return child.wait()
    except KeyboardInterrupt as interrupt:
        # After Ctrl-C the child has had the signal too; a second one would break into its tidying up.
        if isinstance(interrupt, Terminated):
            child.terminate()
        try:
            child.wait(60)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            child.kill()
            child.wait()
        return 130


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")


def _data_folder() -> Path:
    """Where `serve` keeps models and user files: never in the repository, which is linked into it."""
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "kleinod"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "kleinod"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "kleinod"


def _raise_terminated(number: int, frame: object) -> None:
    raise Terminated
