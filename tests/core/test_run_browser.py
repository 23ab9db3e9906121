"""Which browser and git `run.py test` takes or brings, on machines made of stand-ins for programs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.launch import LaunchError
from tools.launch.chromium import find_chromium, opens_a_page, prepare_chromium
from tools.launch.command_line import asks_for_browser
from tools.launch.git import prepare_git

pytestmark = pytest.mark.skipif(os.name == "nt", reason="stand-ins are shell scripts")

# Fetches the address it is given last and prints what the page's script would have made of it.
BROWSER = f"""#!{sys.executable}
import sys, urllib.request
page = urllib.request.urlopen(sys.argv[-1]).read().decode()
print(page.replace("klei' + 'nod", "kleinod"))
"""
BROKEN = "#!/bin/sh\necho 'install the snap'\nexit 1\n"


class Machine:
    """A PATH with the programs a test puts there and nothing else; `log` is what they were called with."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.runtime, self.log = folder / "bin", folder / "runtime", folder / "calls"
        self.bin.mkdir()
        self.log.touch()

    def add(self, name: str, script: str) -> Path:
        return write(self.bin / name, script)

    def record(self, name: str, then: str = "exit 0") -> None:
        self.add(name, f'#!/bin/sh\necho "{name} $@" >> {self.log}\n{then}\n')

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


def write(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KLEINOD_CHROMIUM", raising=False)
    return made


@pytest.fixture
def be_root(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    return lambda yes: monkeypatch.setattr(os, "geteuid", lambda: 0 if yes else 1000)


def python_without_a_download(machine: Machine) -> Path:
    """Stands for the Python whose Playwright finds no server to fetch a browser from."""
    machine.record("python", "exit 1")
    return machine.bin / "python"


def test_an_installed_browser_is_taken_and_nothing_fetched(machine: Machine) -> None:
    machine.record("apt-get")
    path = machine.add("google-chrome", BROWSER)
    assert prepare_chromium(python_without_a_download(machine), machine.runtime) == str(path)
    assert machine.calls() == []


def test_a_named_browser_goes_before_an_installed_one(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add("chromium", BROKEN)
    mine = write(tmp_path / "elsewhere" / "my browser", BROWSER)
    monkeypatch.setenv("KLEINOD_CHROMIUM", str(mine))
    assert prepare_chromium(python_without_a_download(machine), machine.runtime) == str(mine)


def test_root_on_debian_installs_the_package(machine: Machine, be_root: Callable[[bool], None]) -> None:
    be_root(True)
    place = machine.bin / "chromium"
    source = write(machine.runtime / "source", BROWSER)
    machine.record("apt-get", f'case "$1" in install) /bin/cp {source} {place};; esac')
    assert prepare_chromium(python_without_a_download(machine), machine.runtime) == str(place)
    update, install = machine.calls()
    assert update.startswith("apt-get update") and install.endswith(" chromium")
    assert " install " in install and "--no-install-recommends" in install


def test_anybody_else_on_debian_unpacks_it_under_the_runtime_folder(
    machine: Machine, be_root: Callable[[bool], None]
) -> None:
    be_root(False)
    source = write(machine.runtime / "source", BROWSER)
    archives = machine.runtime / "chromium" / "archives"
    machine.record(
        "apt-get", f'case "$*" in *download-only*) /bin/touch {archives}/chromium_1_amd64.deb;; esac'
    )
    place = "usr/lib/chromium"
    machine.record("dpkg-deb", f'/bin/mkdir -p "$3/{place}" && /bin/cp {source} "$3/{place}/chromium"')
    found = prepare_chromium(python_without_a_download(machine), machine.runtime)
    assert Path(found).is_relative_to(machine.runtime)
    assert not [call for call in machine.calls() if " install " in call and "--download-only" not in call]
    assert "--no-sandbox" in Path(found).read_text()
    assert not archives.exists(), "what was unpacked is kept once"
    before = machine.calls()
    assert prepare_chromium(python_without_a_download(machine), machine.runtime) == found
    assert machine.calls() == before, "the second run fetched again"


def test_elsewhere_playwright_is_asked_for_its_own(machine: Machine, be_root: Callable[[bool], None]) -> None:
    be_root(False)
    folder = machine.runtime / "playwright" / "chromium-1234" / "chrome-linux"
    source = write(machine.runtime / "source", BROWSER)
    machine.record("python", f"/bin/mkdir -p {folder} && /bin/cp {source} {folder}/chrome")
    assert prepare_chromium(machine.bin / "python", machine.runtime) == str(folder / "chrome")
    (call,) = machine.calls()
    assert call.startswith("python ") and call.endswith(" install chromium")
    assert find_chromium(machine.runtime) == str(folder / "chrome")


def test_a_browser_whose_sandbox_is_refused_goes_without(
    machine: Machine, be_root: Callable[[bool], None]
) -> None:
    be_root(False)
    refusal = 'import sys\nif "--no-sandbox" not in sys.argv: sys.exit("No usable sandbox!")\n'
    path = machine.add("chromium", BROWSER.replace("import sys", refusal + "import sys", 1))
    found = prepare_chromium(python_without_a_download(machine), machine.runtime)
    assert found != str(path) and opens_a_page(found)
    assert machine.calls() == []


def test_a_broken_browser_does_not_hide_a_working_one(machine: Machine) -> None:
    machine.add("chromium", BROKEN)
    working = machine.add("google-chrome", BROWSER)
    assert prepare_chromium(python_without_a_download(machine), machine.runtime) == str(working)


def test_without_any_of_them_one_sentence_says_what_to_do(
    machine: Machine, be_root: Callable[[bool], None]
) -> None:
    be_root(False)
    machine.add("chromium-browser", BROKEN)  # as Ubuntu's, which only says where to get one
    with pytest.raises(LaunchError, match=r"No Chromium .* apt install chromium; Fedora: .* macOS: ") as told:
        prepare_chromium(python_without_a_download(machine), machine.runtime)
    assert "KLEINOD_CHROMIUM" in str(told.value) and 'test -m "not browser"' in str(told.value)
    assert len(machine.calls()) == 1


def test_a_program_that_shows_no_page_is_no_browser(machine: Machine) -> None:
    assert opens_a_page(str(machine.add("chromium", BROWSER)))
    assert not opens_a_page(str(machine.add("silent", "#!/bin/sh\n")))
    assert not opens_a_page(str(machine.bin / "missing"))


def test_git_is_unpacked_where_there_is_none(machine: Machine, be_root: Callable[[bool], None]) -> None:
    be_root(False)
    with pytest.raises(LaunchError, match="Git was not found"):
        prepare_git(machine.runtime)
    archives = machine.runtime / "git" / "archives"
    machine.record("apt-get", f'case "$*" in *download-only*) /bin/touch {archives}/git_1_amd64.deb;; esac')
    program = write(machine.runtime / "source", '#!/bin/sh\necho "$GIT_EXEC_PATH $*"\n')
    machine.record("dpkg-deb", f'/bin/mkdir -p "$3/usr/bin" && /bin/cp {program} "$3/usr/bin/git"')
    folder = prepare_git(machine.runtime)
    done = subprocess.run([str(folder / "git"), "ls-files", "-z"], capture_output=True, text=True)
    assert done.stdout == f"{machine.runtime}/git/root/usr/lib/git-core ls-files -z\n"
    before = machine.calls()
    assert prepare_git(machine.runtime) == folder and machine.calls() == before


def test_an_installed_git_is_taken(machine: Machine) -> None:
    machine.record("apt-get")
    machine.record("git")
    assert prepare_git(machine.runtime) is None
    assert machine.calls() == []


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ([], True),
        (["--durations=15"], True),
        (["-k", "help"], True),
        (["tests"], True),
        (["tests/"], True),
        (["tests/core", "tests/browser/test_help.py"], True),
        (["tests/server/test_archive.py", "-q"], True),
        (["tests/core/test_faces_fuzz.py"], False),
        (["--quick"], False),
        (["-m", "not browser"], False),
    ],
)
def test_a_browser_is_brought_for_the_tests_that_drive_one(arguments: list[str], asked: bool) -> None:
    assert asks_for_browser(arguments) is asked
