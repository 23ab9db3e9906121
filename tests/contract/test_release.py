"""What the Comfy registry would be given: judged by its own tool, comfy-cli, and by our rules for a release.

comfy-cli lives in an environment of its own under `.runtime/clients`. Validating and packing need no network.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from tests.remote.vendors import prepare
from tools import release
from tools.archive import LARGE, TOP_LEVEL, find_faults, list_published, list_repository
from tools.release import ReleaseError

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "publish.yml"
# Everything at the top of js/ in any version that was published; a release adds its own.
RELEASED_SCRIPTS = {
    f"js/kleinod.{name}.js" for name in ("estimate", "faces", "jobs", "keys", "loras", "request", "strip")
}
REQUIREMENTS = ROOT / "tests" / "requirements-comfy-cli.txt"


@pytest.fixture(scope="module")
def comfy_python() -> Path:
    return prepare("comfy-cli", complete=True)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it is now, committed, with something in it that git ignores."""
    folder = tmp_path_factory.mktemp("clone")
    for name in list_repository(ROOT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    commit(folder, "a release")
    (folder / "output").mkdir()
    (folder / "output" / "secret.key").write_text("not for anybody")
    return folder


def commit(folder: Path, message: str) -> str:
    """Everything in `folder` as a commit of a repository there; its id."""

    def git(*arguments: str) -> str:
        author = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
        command = ["git", *author, *arguments]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", message)
    return git("rev-parse", "HEAD")


def test_comfy_cli_finds_nothing_and_packs_what_we_expect(clone: Path, comfy_python: Path) -> None:
    line = release.check(clone, comfy_python)
    assert line.startswith(f"{release.read_version((ROOT / 'pyproject.toml').read_text())}: ")
    assert not (clone / "node.zip").exists()


def test_a_plain_copy_packs_the_same(clone: Path, comfy_python: Path, tmp_path: Path) -> None:
    """Without git comfy-cli takes whatever lies there: a run's leavings must stay out all the same."""
    copy = shutil.copytree(clone, tmp_path / "copy", ignore=shutil.ignore_patterns(".git"))
    for litter in (".runtime/venv/bin/python", "nodes/model/__pycache__/nano.pyc", "tests/.artifacts/a.png"):
        (copy / litter).parent.mkdir(parents=True, exist_ok=True)
        (copy / litter).write_bytes(b"x")
    sizes, _ = release.pack(copy, comfy_python)
    assert set(sizes) == set(list_published(ROOT))


def test_dangerous_code_is_an_error(clone: Path, comfy_python: Path) -> None:
    """comfy-cli only warns of it, and leaves with success."""
    path = clone / "nodes" / "dangerous.py"
    path.write_text("A = eval('1'); B = 2\n")
    try:
        with pytest.raises(ReleaseError, match=r"S307(.|\n)*E702"):
            release.validate(clone, comfy_python)
    finally:
        path.unlink()


def test_a_warning_about_the_metadata_is_an_error(clone: Path, comfy_python: Path) -> None:
    path = clone / "pyproject.toml"
    good = path.read_text()
    try:
        path.write_text(good.replace('requires-comfyui = ">=0.30.0"', 'requires-comfyui = ">=0.30"'))
        with pytest.raises(ReleaseError, match="Invalid requires-comfyui"):
            release.validate(clone, comfy_python)
    finally:
        path.write_text(good)


def test_published_code_runs_no_other_code() -> None:
    """What comfy-cli does not look for: the modules that start programs or unpickle, `eval` under a roof."""
    modules = {"pickle", "dill", "marshal", "shelve", "subprocess", "multiprocessing", "ctypes", "pip"}
    found = []
    for name in (name for name in list_published(ROOT) if name.endswith(".py")):
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                words = {alias.name.partition(".")[0] for alias in node.names} & modules
            elif isinstance(node, ast.ImportFrom):
                words = {(node.module or "").partition(".")[0]} & modules if not node.level else set()
            elif isinstance(node, ast.Call):
                words = {ast.unparse(node.func)} & {"eval", "exec", "compile", "__import__", "os.system"}
            else:
                continue
            found += [f"{name}: {word}" for word in words]
    assert found == []


def test_faults_of_an_archive_are_seen() -> None:
    good = {name if "." in name or name.isupper() else f"{name}/a.py": 10 for name in TOP_LEVEL}
    assert find_faults(good) == []
    assert find_faults({**good, **dict.fromkeys(LARGE, 2**21)}) == []
    for bad in ("tests/a.py", "run.py", "tools/a.py", "nodes/a.pt", "nodes/.env", "nodes/a.pem", "js/key"):
        assert len(find_faults({**good, bad: 1})) == 1, bad
    assert "larger than 1 MiB" in " ".join(find_faults({**good, "nodes/b.safetensors": 2**20 + 1}))
    assert "30 or more" in " ".join(find_faults({**good, next(iter(LARGE)): 30 * 2**20}))
    assert find_faults({name: size for name, size in good.items() if name != "LICENSE"}) == [
        "LICENSE is missing."
    ]


def test_no_script_of_an_earlier_release_vanishes() -> None:
    """ComfyUI-Manager 4.2.2 leaves what an update no longer has (tests/server/test_manager.py), and the page
    loads every script it finds: the old one would go on working beside the new. Ship a renamed or removed one
    as a script that does nothing.
    """
    assert RELEASED_SCRIPTS - set(list_published(ROOT)) == set()


def test_every_large_file_is_there() -> None:
    assert set(list_published(ROOT)) >= LARGE


def test_links_of_published_pages_lead_somewhere() -> None:
    """Within the archive; the README's, which is the page of the repository, also to a test or a tool."""
    repository, published = set(list_repository(ROOT)), set(list_published(ROOT))
    for page in sorted(name for name in published if name.endswith(".md")):
        there = repository if page == "README.md" else published
        text = (ROOT / page).read_text(encoding="utf-8")
        for mark, link in re.findall(r"(!?)\[[^\]]*\]\((?!https?:|#)([^)]+)\)", text):
            target = ((ROOT / page).parent / unquote(link.partition("#")[0])).resolve()
            name = target.relative_to(ROOT).as_posix()
            assert name in (published if mark else there), f"{page} links to {link}"


def test_the_version_stands_in_one_place() -> None:
    version = release.read_version((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    code = [name for name in list_published(ROOT) if name.endswith((".py", ".js", ".json"))]
    literal = re.compile(rf"(?i)kleinod[^\n]{{0,40}}\b{re.escape(version)}\b|^__version__ *=", re.MULTILINE)
    assert [name for name in code if literal.search((ROOT / name).read_text(encoding="utf-8"))] == []
    assert release.read_notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)


def test_notes_are_the_section_of_the_version() -> None:
    text = "# Changelog\n\n## [Unreleased]\n\n## [1.1.0] - 2027-01-02\n\n### Added\n- b\n\n"
    text += "## [1.0.0] - 2026-11-21\n- a\n"
    assert release.read_notes(text, "1.1.0") == "### Added\n- b\n"
    assert release.read_notes(text, "1.0.0") == "- a\n"
    for missing in ("1.2.0", "Unreleased", "1.1"):
        with pytest.raises(ReleaseError, match="has no section"):
            release.read_notes(text, missing)


def test_only_a_changed_version_is_published(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\nname = "a"\nversion = "1.0.0"\n')
    first = commit(tmp_path, "first")
    project.write_text('[project]\nname = "b"\nversion = "1.0.0"\n')
    assert not release.is_new(tmp_path, first)
    project.write_text('[project]\nname = "b"\nversion = "1.0.1"\n')
    assert release.is_new(tmp_path, first)
    assert release.is_new(tmp_path, "") and release.is_new(tmp_path, "0" * 40)
    project.write_text('[project]\nname = "b"\nversion = "1.0"\n')
    with pytest.raises(ReleaseError, match=r"X\.Y\.Z"):
        release.is_new(tmp_path, first)


def test_the_workflow_asks_for_little_and_trusts_little() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    push = {"branches": ["main"], "paths": ["pyproject.toml"]}
    # YAML 1.1 reads the key `on` as a boolean.
    assert workflow[True] == {"workflow_dispatch": None, "push": push}
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert "permissions" not in job and "refs/heads/main" in job["if"] and "fork" in job["if"]
    steps = job["steps"]
    used = [step["uses"] for step in steps if "uses" in step]
    # GitHub's own actions only, each pinned to a commit.
    assert [name for name in used if not re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", name)] == []
    assert steps[0]["with"] == {"fetch-depth": 0, "persist-credentials": False}
    # Text from outside reaches a shell as a variable, never as part of the command.
    assert not [step["run"] for step in steps if "${{" in step.get("run", "")]
    assert [step["name"] for step in steps if "secrets." in str(step)] == ["Publish"]
    after = steps[[step.get("id") for step in steps].index("version") + 1 :]
    assert [step["if"] for step in after] == ["steps.version.outputs.new == 'true'"] * 3
    commands = " ".join(step["run"] for step in after)
    assert commands.index("tools.release check") < commands.index("node publish")


def test_pull_requests_run_what_every_other_ci_runs() -> None:
    workflow = yaml.safe_load(WORKFLOW.with_name("test.yml").read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert [name for name in used if not re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", name)] == []
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in commands if "run.py" in line] == ["exec python3 run.py test --durations=15"]
    assert not [line for line in commands if "apt" in line or "pip install" in line]
    # Each Python that run.py takes.
    launcher = (ROOT / "run.py").read_text(encoding="utf-8")
    (oldest, newest) = re.search(r"OLDEST, NEWEST = \(3, (\d+)\), \(3, (\d+)\)", launcher).groups()
    pythons = [f"3.{minor}" for minor in range(int(oldest), int(newest) + 1)]
    assert job["strategy"]["matrix"]["python"] == pythons


def test_the_workflow_installs_nothing_unpinned() -> None:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("#") or re.fullmatch(r"[A-Za-z0-9-]+==[0-9.]+", line) for line in lines)
    installs = re.findall(r"pip install (.*)", WORKFLOW.read_text(encoding="utf-8"))
    assert installs == ["--no-deps -r tests/requirements-comfy-cli.txt"]
