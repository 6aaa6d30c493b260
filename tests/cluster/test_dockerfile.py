"""The Dockerfile, as far as that goes without building it: sources, users, versions."""

import fnmatch
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from cluster.render.steps import DATA

CODE = "/opt/objgan"


@pytest.fixture(scope="module")
def instructions(repository: Path) -> list[tuple[str, str]]:
    """(instruction, rest) with continued lines joined."""
    lines = [line for line in (repository / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines() if line.strip()]


def test_what_is_copied_exists_and_is_not_ignored(repository: Path, instructions: list[tuple[str, str]]) -> None:
    patterns = [line for line in (repository / ".dockerignore").read_text().splitlines() if line[:1] not in ("#", "")]
    kept = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    assert patterns[0] == "*"
    copied = [shlex.split(rest) for name, rest in instructions if name == "COPY" and "--from" not in rest]
    sources = {source for words in copied for source in words[:-1]}
    assert sources
    for source in sources:
        assert (repository / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) or source.startswith(f"{pattern}/") for pattern in kept), source
    assert {source for source in sources if "/" not in source} >= {"objgan", "pipelines", "tune", "cluster"}


def test_nobody_is_root_in_the_end(instructions: list[tuple[str, str]]) -> None:
    assert [rest for name, rest in instructions if name == "USER"] == ["1000:1000"]
    assert ("WORKDIR", DATA) in instructions


def test_versions_are_pinned_and_nothing_is_fetched_at_start(
    repository: Path, instructions: list[tuple[str, str]]
) -> None:
    runs = [rest for name, rest in instructions if name == "RUN"]
    for command in re.findall(r"pip install[^;&]*", " ".join(runs)):
        assert "--constraint constraints.txt" in command, command
    (start,) = (rest for name, rest in instructions if name in ("CMD", "ENTRYPOINT"))
    assert start == '["python", "-m", "pipelines", "--help"]'
    assert not re.search(r":latest\b|\bADD\b", (repository / "Dockerfile").read_text())
    python = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["requires-python"]
    assert re.search(r"ARG PYTHON=(\d+\.\d+)", (repository / "Dockerfile").read_text())[1] == python.removeprefix(">=")


def test_code_and_token_mode_are_where_the_manifests_expect_them(instructions: list[tuple[str, str]]) -> None:
    environment = " ".join(rest for name, rest in instructions if name == "ENV")
    assert f"PYTHONPATH={CODE}" in environment
    assert "RAY_AUTH_MODE=token" in environment
    assert f"{CODE}/cluster" in " ".join(rest for name, rest in instructions if name == "COPY")


def test_a_login_shell_finds_ray(instructions: list[tuple[str, str]]) -> None:
    """KubeRay and `ray up` start Ray from one, and Debian's /etc/profile sets PATH anew."""
    runs = " ".join(rest for name, rest in instructions if name == "RUN")
    assert re.search(r"echo 'export PATH=/opt/venv/bin:\$PATH' > /etc/profile\.d/\w+\.sh", runs)


def test_the_manifests_name_the_ray_of_the_constraints(repository: Path) -> None:
    from cluster.render.settings import Settings

    assert f"\nray=={Settings().ray_version}\n" in (repository / "constraints.txt").read_text()


def test_a_compiler_is_in_the_image_that_asks_for_it(instructions: list[tuple[str, str]]) -> None:
    """By the build argument that the refusal of `compute.compile` names; an ARG ends with its stage."""
    last = max(number for number, (name, _) in enumerate(instructions) if name == "FROM")
    assert ("ARG", 'COMPILER=""') in instructions[last:]
    (installs,) = (rest for name, rest in instructions[last:] if name == "RUN")
    line = re.search(r"apt-get install [^&]*", installs)[0]
    for compiler, expected in (("", []), ("g++", ["g++"])):
        said = subprocess.run(
            ["bash", "-c", f"apt-get() {{ printf '%s\\n' \"$@\"; }}; {line}"],
            env={"COMPILER": compiler}, capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        assert said[said.index("rsync=3.*") + 1 :] == expected
