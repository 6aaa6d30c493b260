"""The house rules that a machine can check, and the checker itself on made-up bad modules."""

import ast
import fnmatch
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("objgan", "pipelines", "tune", "cluster")
TOP_LEVEL = {".ci", "docs", "tests", *PACKAGES}
TOP_LEVEL_FILES = {
    *(".dockerignore", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "Dockerfile", "LICENSE", "Makefile"),
    *("README.md", "constraints.txt", "pyproject.toml"),
}
MOST_BYTES = 500_000
FORBIDDEN = {
    "objgan": {"ray", "mlflow", "pyarrow", "pipelines", "tune", "cluster"},
    "pipelines": {"tune", "cluster"},
    "tune": {"cluster"},
    "cluster": {"objgan", "pipelines", "tune"},
}
# What `cluster` may import all the same: modules that need neither Ray nor torch.
LIGHT = {
    "objgan.config",
    "objgan.errors",
    "objgan.sections",
    "pipelines.command_line",
    "pipelines.recipes",
    "pipelines.redaction",
    "pipelines.yaml_input",
}
# The one module of `objgan` that knows MLflow: `objgan.load("models:/...")`.
KNOWS_MLFLOW = "objgan/mlflow_model.py"
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}
MOST_FUNCTION_LINES = 60

# Folders of a package, from the top: a folder imports from those below it, never from above or from one beside it.
FLOORS: dict[str, list[set[str]]] = {
    "pipelines": [
        {"__main__"},
        {"cli"},
        {"workflow"},
        {"evaluation", "generation", "studio"},
        {"training"},
        {"data"},
        {"runs"},
        {"models"},
        {"tracking"},
        {"runtime"},
        {"storage"},
        {"recipes"},
        {"yaml_input"},
        {"command_line"},
        {"redaction"},
    ],
    "pipelines.data": [{"verify"}, {"prepare", "report", "loading", "sample"}, {"shards"}],
    "tune": [{"__main__"}, {"cli"}, {"confirm"}, {"engine"}, {"report"}, {"sweep"}, {"space"}],
    "cluster": [{"__main__"}, {"render", "jobs", "estimate", "run_steps"}],
}


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import, wherever it stands; `from a import b` counts as `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")
            if node.module and not node.level:
                yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)
        elif isinstance(node, ast.Call) and _called(node) in {"__import__", "import_module"}:
            yield from ((node.lineno, str(given.value)) for given in node.args[:1] if isinstance(given, ast.Constant))


def import_faults(package: str, tree: ast.AST) -> list[str]:
    """Imports that point the wrong way, and relative ones."""
    faults = []
    for line, module in imports(tree):
        root = module.split(".")[0]
        if root in FORBIDDEN.get(package, set()) and not (package == "cluster" and _is_light(module)):
            faults.append(f"{line}: {package} imports {module}")
        if not root:
            faults.append(f"{line}: relative import {module}")
    return faults


def floor_faults(package: str, module: str, tree: ast.AST) -> list[str]:
    """Imports from a folder above, or beside, in the order of FLOORS."""
    floors = {name: number for number, names in enumerate(FLOORS[package]) for name in names}
    here = folder_of(package, module)
    faults = []
    for line, imported in imports(tree):
        there = folder_of(package, imported)
        if there is None or there == here or here is None:
            continue
        if unknown := {here, there} - floors.keys():
            faults.append(f"{line}: {' and '.join(sorted(unknown))} of {package} has no place in FLOORS")
        elif floors[there] <= floors[here]:
            faults.append(f"{line}: {package}.{here} imports {imported}, which is not below it")
    return faults


def folder_of(package: str, module: str) -> str | None:
    """The folder (or single file) of a package that a module is in; None: of another package, or the package itself."""
    return module.removeprefix(f"{package}.").split(".")[0] if module.startswith(f"{package}.") else None


def _is_light(module: str) -> bool:
    """Whether it is one of LIGHT, a name in one, or a package above one."""
    return any(f"{light}.".startswith(f"{module}.") or module.startswith(f"{light}.") for light in LIGHT)


def style_faults(tree: ast.AST) -> list[str]:
    """`from ray import data` (a half-initialised package hides behind it), and readers that run what they read."""
    faults = []
    for node in ast.walk(tree):
        if _pickles(node):
            faults.append(f"{node.lineno}: {ast.unparse(node)} runs code when it reads")
        if isinstance(node, ast.ImportFrom) and node.module == "ray":
            faults.append(f"{node.lineno}: write `import ray.{node.names[0].name}`")
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load" and not _weights_only(node):
            faults.append(f"{node.lineno}: torch.load without weights_only=True")
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open" and not _names_formats(node):
            faults.append(f"{node.lineno}: Image.open without formats=: some of Pillow's start another program")
    return faults


def size_faults(source: str) -> list[str]:
    """Functions that are too long (ruff counts arguments)."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MOST_FUNCTION_LINES:
                faults.append(f"{node.lineno}: {node.name} has {length} lines")
    return faults


def _pickles(node: ast.AST) -> bool:
    """Whether it takes anything but the error class from a module of PICKLES."""
    if isinstance(node, ast.ImportFrom):
        return node.module in PICKLES and any(name.name != "UnpicklingError" for name in node.names)
    if isinstance(node, ast.Import):
        return any(name.name in PICKLES - {"pickle"} or (name.name == "pickle" and name.asname) for name in node.names)
    return isinstance(node, ast.Attribute) and ast.unparse(node.value) in PICKLES and node.attr != "UnpicklingError"


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func).split(".")[-1]


def _weights_only(node: ast.Call) -> bool:
    given = {k.arg: k.value for k in node.keywords}.get("weights_only")
    return isinstance(given, ast.Constant) and given.value is True


def _names_formats(node: ast.Call) -> bool:
    return any(keyword.arg == "formats" for keyword in node.keywords)


def modules(repository: Path, *folders: str) -> list[Path]:
    found = sorted(path for folder in folders for path in (repository / folder).rglob("*.py"))
    assert found, f"no modules in {folders}"
    return found


def report(repository: Path, faults: dict[Path, list[str]]) -> str:
    return "\n".join(f"{path.relative_to(repository)}:{fault}" for path, all_ in faults.items() for fault in all_)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(repository: Path, package: str) -> None:
    faults = {path: import_faults(package, ast.parse(path.read_text())) for path in modules(repository, package)}
    known = faults.pop(repository / KNOWS_MLFLOW, [])
    assert all("objgan imports mlflow" in fault for fault in known), known
    assert not report(repository, faults), report(repository, faults)


@pytest.mark.parametrize("package", FLOORS)
def test_folders_import_only_from_floors_below(repository: Path, package: str) -> None:
    faults = {}
    for path in modules(repository, package.replace(".", "/")):
        module = ".".join(path.relative_to(repository).with_suffix("").parts).removesuffix(".__init__")
        faults[path] = floor_faults(package, module, ast.parse(path.read_text()))
    assert not report(repository, faults), report(repository, faults)


@pytest.mark.parametrize("package", FLOORS)
def test_every_folder_has_a_floor(repository: Path, package: str) -> None:
    folder = repository / package.replace(".", "/")
    folders = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert folders - {"__init__"} == set().union(*FLOORS[package])


@pytest.mark.parametrize(
    ("package", "module", "source", "fault"),
    [
        ("pipelines", "pipelines.storage.lease", "from pipelines.runs.status import RunStatus", "not below"),
        ("pipelines", "pipelines.models.registry", "import pipelines.runs.listing", "not below"),
        (
            "pipelines",
            "pipelines.training.job",
            "def f():\n    from pipelines.cli import train",
            "2: pipelines.training",
        ),
        ("pipelines", "pipelines.training.job", "import pipelines.attic.box", "no place"),
        ("pipelines.data", "pipelines.data.prepare.prepare", "from pipelines.data.loading import reader", "not below"),
        ("tune", "tune.space.space", "from tune.sweep.sweep import Sweep", "not below"),
    ],
)
def test_the_checker_sees_imports_from_above(package: str, module: str, source: str, fault: str) -> None:
    faults = floor_faults(package, module, ast.parse(source))
    assert any(fault in one for one in faults), faults


def test_the_checker_lets_imports_from_below_pass() -> None:
    source = "from pipelines.storage import lease\nfrom pipelines.training.job import TrainJob\nimport ray.train"
    assert not floor_faults("pipelines", "pipelines.training.driver", ast.parse(source))


def test_ray_is_imported_whole_and_nothing_unpickles(repository: Path) -> None:
    trees = {path: ast.parse(path.read_text()) for path in modules(repository, *PACKAGES, "tests")}
    faults = {path: style_faults(tree) for path, tree in trees.items()}
    for path in faults:
        if path.is_relative_to(repository / "tests"):  # which open what they wrote themselves
            faults[path] = [fault for fault in faults[path] if "Image.open" not in fault]
    assert not report(repository, faults), report(repository, faults)


def test_functions_are_short(repository: Path) -> None:
    faults = {path: size_faults(path.read_text()) for path in modules(repository, *PACKAGES)}
    assert not report(repository, faults), report(repository, faults)


def test_every_package_has_an_init_and_tests_have_none(repository: Path) -> None:
    bare = {path.parent for path in modules(repository, *PACKAGES) if not (path.parent / "__init__.py").exists()}
    assert not bare, f"no __init__.py in {sorted(map(str, bare))}"
    assert not list((repository / "tests").rglob("__init__.py"))


def top_level_faults(repository: Path) -> list[str]:
    """Folders and files at the root that are neither the house's nor ignored by git."""
    ignored = [line.strip("/") for line in (repository / ".gitignore").read_text().splitlines() if line]
    faults = []
    for path in sorted(repository.iterdir()):
        known = TOP_LEVEL if path.is_dir() else TOP_LEVEL_FILES
        if path.name not in {".git", *known} and not any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored):
            faults.append(f"{path.name} is not of the house: move it, or ignore it in .gitignore")
    return faults


def large_files(repository: Path, tracked: Iterator[str]) -> list[str]:
    """Tracked files that are too large for a repository, with their sizes."""
    found = ((name, repository / name) for name in tracked)
    sizes = [(name, path.stat().st_size) for name, path in found if path.is_file() and not path.is_symlink()]
    return [f"{name} has {size:,} bytes, over {MOST_BYTES:,}" for name, size in sizes if size > MOST_BYTES]


def tracked_files(repository: Path) -> Iterator[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip(f"git does not list the files here: {listed.stderr.strip()}")
    return (name for name in listed.stdout.split("\0") if name)


def test_the_top_level_is_the_house(repository: Path) -> None:
    assert top_level_faults(repository) == []


def test_tracked_files_are_small_and_none_is_ignored(repository: Path) -> None:
    """A database or a model in the repository is an accident, and travels with every job."""
    assert large_files(repository, tracked_files(repository)) == []
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    both = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.split()
    assert both == [], "tracked, although .gitignore says that it is no part of the repository"


def test_what_a_run_leaves_at_the_root_is_seen_and_what_mlflow_makes_is_ignored(
    repository: Path, tmp_path: Path
) -> None:
    for name in (".gitignore", ".dockerignore"):
        (tmp_path / name).write_text((repository / name).read_text())
        assert {"/mlflow.db", "/mlruns/"} <= set((repository / name).read_text().splitlines())
    for name in ("mlruns", "runs", "data", ".venv", "tests"):
        (tmp_path / name).mkdir()
    for name in ("mlflow.db", "mlflow.db-journal"):
        (tmp_path / name).write_bytes(b"")
    assert top_level_faults(tmp_path) == []
    (tmp_path / "scratch.db").write_bytes(bytes(MOST_BYTES + 1))
    (tmp_path / "s3:").mkdir()
    assert [fault.split()[0] for fault in top_level_faults(tmp_path)] == ["s3:", "scratch.db"]
    assert large_files(tmp_path, iter(["scratch.db", "mlflow.db"])) == ["scratch.db has 500,001 bytes, over 500,000"]


@pytest.mark.parametrize(
    ("package", "source", "told"),
    [
        ("objgan", "import ray.data", "objgan imports ray.data"),
        (
            "objgan",
            "def f():\n    from pipelines.training.driver import fit",
            "2: objgan imports pipelines.training.driver",
        ),
        ("objgan", "import importlib\nimportlib.import_module('mlflow')", "objgan imports mlflow"),
        ("objgan", "import numpy as np, pyarrow as pa", "objgan imports pyarrow"),
        ("pipelines", "import tune.space.default_space", "pipelines imports tune.space.default_space"),
        ("tune", "from cluster.jobs import submit", "tune imports cluster"),
        ("cluster", "if True:\n    import objgan.training", "2: cluster imports objgan"),
        ("cluster", "from pipelines.training import driver as train", "cluster imports pipelines.training.driver"),
        ("pipelines", "from . import coco", "relative import"),
    ],
)
def test_the_checker_sees_wrong_imports(package: str, source: str, told: str) -> None:
    faults = import_faults(package, ast.parse(source))
    assert any(told in fault for fault in faults), faults


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("tune", "import pipelines.training.driver, objgan, ray.tune"),
        ("pipelines", "import ray.train, objgan.config, mlflow"),
    ],
)
def test_the_checker_lets_right_imports_pass(package: str, source: str) -> None:
    assert not import_faults(package, ast.parse(source))


def test_the_checker_sees_wrong_style() -> None:
    bad = """
        from ray import tune
        torch.load("x")
        torch.load("x", weights_only=False)
        import pickle
        pickle.load(file)
        from pickle import loads
        import pickle as p
        import cloudpickle
        Image.open(path)
    """
    faults = style_faults(ast.parse(textwrap.dedent(bad)))
    assert sorted(int(fault.split(":")[0]) for fault in faults) == [2, 3, 4, 6, 7, 8, 9, 10]
    good = "import ray.tune, pickle\ntry:\n  torch.load('x', weights_only=True)\nexcept pickle.UnpicklingError: pass"
    assert not style_faults(ast.parse(good))


def test_the_checker_sees_what_is_too_long() -> None:
    long_function = "def f():\n" + "    x = 1\n" * 60
    assert size_faults(long_function) == ["1: f has 61 lines"]
    assert not size_faults("def f():\n" + "    x = 1\n" * 59)


@pytest.mark.parametrize(
    ("module", "slow"),
    [
        ("pipelines.cli.datasets", {"torch", "ray", "mlflow"}),
        ("pipelines.cli.runs", {"torch", "ray", "mlflow"}),
        ("tune.cli.show", {"ray", "mlflow", "matplotlib"}),
        ("objgan.generation", {"torchvision", "torch._dynamo", "spacy"}),
        ("pipelines.cli.commands", {"torchvision", "torch._dynamo", "torch_fidelity", "mlflow", "spacy"}),
    ],
)
def test_nobody_waits_for_imports_that_are_not_needed(module: str, slow: set[str], repository: Path) -> None:
    """Each of these is about a second, in every process that starts."""
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=True)
    assert not slow & set(done.stdout.split())
