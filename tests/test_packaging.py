"""What is shipped, and what it needs: the wheel, the declared dependencies, the exact versions."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import objgan

DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}
"""Where the name that is imported is not the name that is installed."""


@pytest.fixture(scope="module")
def project(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def pins(repository: Path) -> dict[str, Version]:
    lines = [line for line in (repository / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    matches = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+]+)", line) for line in lines]
    unclear = [line for line, match in zip(lines, matches, strict=True) if match is None]
    assert not unclear, f"not an exact version: {unclear}"
    return {canonicalize_name(match[1]): Version(match[2]) for match in matches if match}


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what is shipped, so that nothing is left in the work tree; nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    names = [
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "objgan",
        "pipelines",
        "tune",
        "cluster",
        "tests",
    ]
    copy = ["tar", "--create", "--exclude=__pycache__", f"--directory={repository}", *names]
    (folder / "source").mkdir()
    with subprocess.Popen(copy, stdout=subprocess.PIPE) as tar:
        subprocess.run(["tar", "--extract", f"--directory={folder / 'source'}"], stdin=tar.stdout, check=True)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist")]
    done = subprocess.run([*command, str(folder / "source")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_objgan_alone(wheel: Path, repository: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    info = f"objgan-{objgan.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"objgan", info}
    there = {name for name in names if name.startswith("objgan/")}
    expected = {str(path.relative_to(repository)) for path in (repository / "objgan").rglob("*.py")}
    assert there == expected | {"objgan/py.typed"}
    assert f"{info}/licenses/LICENSE" in names


def test_the_wheel_tells_version_licence_and_python(wheel: Path) -> None:
    metadata = zipfile.ZipFile(wheel).read(f"objgan-{objgan.__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {objgan.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
    assert not re.search(r"Requires-Dist: (ray|mlflow|pyarrow)(?!.*extra ==)", metadata)


def test_constraints_pin_what_is_declared(project: dict, repository: Path, pins: dict[str, Version]) -> None:
    build = tomllib.loads((repository / "pyproject.toml").read_text())["build-system"]["requires"]
    declared = [
        *build,
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    for requirement in map(Requirement, declared):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"constraints.txt lacks {requirement.name}"
        assert requirement.specifier.contains(pin), f"{requirement} excludes the tested {pin}"


def test_constraints_pin_what_those_need(project: dict, pins: dict[str, Version]) -> None:
    """Everything that the installed distributions ask for in turn, torch's own libraries included."""
    from importlib.metadata import distribution

    declared = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    todo, seen = [Requirement(r) for r in declared], set()
    while todo:
        requirement = todo.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        assert key[0] in pins, f"constraints.txt lacks {key[0]}"
        environments = [{"extra": extra} for extra in ("", *requirement.extras)]
        for needed in map(Requirement, distribution(requirement.name).requires or []):
            if needed.marker is None or any(needed.marker.evaluate(env) for env in environments):
                todo.append(needed)


def test_what_is_imported_is_declared(project: dict, repository: Path) -> None:
    own = _names(project["dependencies"])
    workflow = own | _names(project["optional-dependencies"]["workflow"])
    development = workflow | _names(project["optional-dependencies"]["dev"]) | {"packaging"}
    # MLflow: only where a model is given by MLflow's URI; without it, the error says so.
    for folder, allowed in (
        ("objgan", own | {"mlflow"}),
        ("pipelines", workflow),
        ("tune", workflow),
        ("tests", development),
    ):
        missing = _third_party(repository / folder) - allowed
        assert not missing, f"{folder} imports {sorted(missing)}, which pyproject.toml does not declare for it"


def _names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(r).name) for r in requirements}


def _third_party(folder: Path) -> set[str]:
    roots = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                roots |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                roots.add(node.module.split(".")[0])
    here = {"objgan", "pipelines", "tune", "cluster", "tests"}
    return {canonicalize_name(DISTRIBUTIONS.get(r, r)) for r in roots - here - set(sys.stdlib_module_names)}
