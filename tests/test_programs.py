"""What pipelines, tune and cluster share: options that are given twice, locations, missing packages, other folders."""

import argparse
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.__main__ import parser as cluster_parser
from pipelines import command_line
from pipelines.__main__ import main
from pipelines.__main__ import parser as pipelines_parser
from tune.__main__ import COMMANDS as TUNE
from tune.__main__ import parser as tune_parser

PLACES = {"DIR", "FILE", "LOCATION", "PATH", "URI"}


def _parsers() -> dict[str, argparse.ArgumentParser]:
    """Every command's own parser, by name."""
    found: dict[str, argparse.ArgumentParser] = {f"tune {name}": tune_parser(name) for name in TUNE}
    for program, top in (("pipelines", pipelines_parser()), ("cluster", cluster_parser())):
        (commands,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
        found |= {f"{program} {name}": parser for name, parser in commands.choices.items()}
    return found


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    return (action for action in parser._actions if action.option_strings and action.nargs != 0)


def _refusal(parser: argparse.ArgumentParser, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(words)
    text = capsys.readouterr().err
    assert ended.value.code == 2 and text.startswith("error: ") and len(text.splitlines()) == 1, text
    return text


def _value(action: argparse.Action) -> str:
    if action.choices:
        return str(next(iter(action.choices)))
    return {"time_budget": "5s", "pbt_quantile": "0.5"}.get(action.dest, "2")


@pytest.mark.parametrize("name", sorted(_parsers()))
def test_an_option_given_twice_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = _parsers()[name]
    for action in _options(parser):
        option, value = action.option_strings[-1], _value(action)
        if isinstance(action, argparse._AppendAction):
            continue
        text = _refusal(parser, [option, value, f"{option}={value}"], capsys)
        assert f"argument {option}: given twice" in text, text


@pytest.mark.parametrize(
    "name", ["pipelines demo", "pipelines run", "pipelines prepare", "pipelines train", "tune sweep", "cluster render"]
)
def test_a_setting_given_twice_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = _parsers()[name]
    text = _refusal(parser, ["--set", "a.b=1", "--set", "a.c=1", "--set", "a.b=2"], capsys)
    assert "argument --set: a.b given twice (a.b=1 and a.b=2)" in text


@pytest.mark.parametrize(
    "words", [["--workers", "2", "--set", "compute.workers=3"], ["--workers", "2-3", "--set", "compute.max_workers=3"]]
)
def test_workers_given_by_two_options_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--dry-run", *words]) == 2
    assert "--workers and --set compute." in capsys.readouterr().err


def test_parsing_again_starts_afresh(capsys: pytest.CaptureFixture[str]) -> None:
    parser = tune_parser("sweep")
    for _ in range(2):
        assert parser.parse_args(["boxes", "--seed", "3", "--set", "a=1"]).seed == 3
    assert "given twice (3 and 3)" in _refusal(parser, ["boxes", "--seed", "3", "--seed", "3"], capsys)


@pytest.mark.parametrize("name", sorted(name for name in _parsers() if not name.startswith("cluster")))
def test_help_has_a_purpose_groups_every_default_and_examples(name: str) -> None:
    parser = _parsers()[name]
    text = parser.format_help()
    assert parser.description and parser.description.splitlines()[0].endswith(".")
    assert f"\nexamples:\n  {parser.prog}" in text.replace("MLFLOW_TRACKING_URI=http://mlflow:5000 ", "")
    assert text.rstrip().endswith("143 terminated.")
    groups = re.findall(r"^(\w[\w ]*):$", text, re.MULTILINE)
    assert groups[0] == "options" and groups[-1] == "examples"
    assert groups[1:-1] == [group for group in command_line.GROUPS if group in groups]
    for action in _options(parser):
        assert "default: " in str(action.help), action.dest
    assert parser._actions[-1].option_strings == ["--log-format"]


def test_commands_are_listed_in_working_order() -> None:
    listed = [name.removeprefix("pipelines ") for name in _parsers() if name.startswith("pipelines ")]
    order = [
        "sample",
        "prepare",
        "verify",
        "inspect",
        "train",
        "run",
        "evaluate",
        "generate",
        "register",
        "promote",
        "runs",
    ]
    assert [name for name in listed if name in order] == order and listed[-1] == "explain"


@pytest.mark.parametrize("name", sorted(_parsers()))
def test_options_are_not_abbreviated_and_a_misspelt_option_gets_a_suggestion(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = _parsers()[name]
    known = {option for action in parser._actions for option in action.option_strings}
    for action in _options(parser):
        option = action.option_strings[-1]
        for wrong in {option[:-1], f"{option}s"} - known - {"--"}:
            text = _refusal(parser, [wrong, _value(action), "--", "word"], capsys)
            assert f"unknown option {wrong}" in text
            if len(option) > 4:
                assert "did you mean --" in text
            assert f"`{parser.prog} --help`" in text


@pytest.mark.parametrize(
    ("program", "words", "meant"),
    [
        ("pipelines", ["trian"], "unknown command 'trian': did you mean train?"),
        ("pipelines", ["runs", "lst"], "unknown value 'lst': did you mean list?"),
        ("pipelines", ["register", "--modle", "x"], "unknown option --modle: did you mean --model?"),
        ("pipelines", ["train", "boxes", "kites"], "unknown argument 'kites'"),
        ("tune", ["boxes", "--search", "optun"], "argument --search: unknown value 'optun': did you mean optuna?"),
        ("tune", ["shwo", "first"], "did you mean show?"),
        ("cluster", ["submt"], "unknown command 'submt': did you mean submit?"),
        ("cluster", ["submit", "--adress", "x", "--", "true"], "unknown option --adress: did you mean --address?"),
    ],
)
def test_a_misspelt_word_gets_a_suggestion(
    program: str, words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main = importlib.import_module(f"{program}.__main__").main
    with pytest.raises(SystemExit) as ended:
        main(words)
    text = capsys.readouterr().err
    assert ended.value.code == 2 and meant in text and len(text.splitlines()) == 1, text


@pytest.mark.parametrize("name", sorted(_parsers()))
def test_every_option_that_takes_a_place_has_a_type_for_it(name: str) -> None:
    kinds = {command_line.location, command_line.location_text, command_line.local_path, command_line.model}
    for action in _parsers()[name]._actions:
        if action.metavar in PLACES and f"{name} {action.dest}" not in ("cluster submit storage",):
            assert callable(action.type), action.dest
            assert action.type in kinds or str(action.type("file:///a%20b")) == "/a b", action.dest


def test_a_uri_is_taken_as_it_is_or_refused_without_its_password() -> None:
    uri = "s3://key:hush@bucket/folder"
    assert command_line.location(uri) == command_line.model(uri) == uri
    assert command_line.model("models:/objgan@challenger") == "models:/objgan@challenger"
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        command_line.local_path(uri)
    assert "takes no s3:// URI" in str(caught.value) and "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("data/prepared", Path("data/prepared")),
        ("/a b/c%20d?#", Path("/a b/c%20d?#")),
        ("file:///a%20b/c", Path("/a b/c")),
        ("file://localhost/a", Path("/a")),
        ("~/x", Path.home() / "x"),
        ("./s3:/bucket", Path("s3:/bucket")),
        ("s3://bucket/a b", "s3://bucket/a b"),
        ("gs://bucket/x", "gs://bucket/x"),
        ("S3://bucket/x", "S3://bucket/x"),
    ],
)
def test_locations(text: str, meant: Path | str) -> None:
    assert command_line.location(text) == meant


@pytest.mark.parametrize("text", ["", "a\0b", "s3:/bucket/x", "file://server/share", "~nobody-of-that-name/x"])
def test_what_is_no_location(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        command_line.location(text)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("pipelines", ["prepare", "--out"]),
        ("pipelines", ["run", "--out"]),
        ("pipelines", ["sample", "--out"]),
        ("pipelines", ["demo", "--out"]),
        ("pipelines", ["judges", "--out"]),
        ("pipelines", ["evaluate", "--out"]),
        ("pipelines", ["generate", "a kite", "--out"]),
        ("pipelines", ["inspect", "--out"]),
        ("pipelines", ["prepare", "--split"]),
        ("tune", ["boxes", "--export-recipe"]),
        ("tune", ["space", "boxes", "--out"]),
        ("cluster", ["render", "--all"]),
        ("cluster", ["token"]),
    ],
)
def test_a_uri_where_only_paths_are_taken_is_refused_and_nothing_is_made(
    program: str, words: list[str], tmp_path: Path, repository: Path
) -> None:
    for uri in ("s3://key:hush@bucket/out", "s3:/bucket/out"):
        done = _run(["-m", program, *words, uri], tmp_path, {"PYTHONPATH": str(repository)})
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "URI" in done.stderr and "hush" not in done.stderr
        assert list(tmp_path.iterdir()) == []


def _run(
    words: list[str], folder: Path, environment: dict[str, str] | None = None, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *words], cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True, text=True
    )


@pytest.mark.parametrize("program", ["pipelines", "tune", "cluster"])
def test_programs_without_their_packages_say_what_to_do(program: str, tmp_path: Path, repository: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    done = _run(["-m", program, "--help"], repository, python=str(bare / "bin" / "python"))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"error: {bare}/bin/python has no package ") and ".venv/bin/python" in done.stderr


@pytest.mark.parametrize("program", ["pipelines", "tune", "cluster"])
def test_programs_run_by_the_path_of_their_folder(program: str, tmp_path: Path, repository: Path) -> None:
    """`python CHECKOUT/pipelines` finds the modules of the checkout from any folder."""
    for words in ([str(repository / program)], [str(repository / program / "__main__.py")]):
        done = _run([*words, "--help"], tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("usage: python -m")


def test_a_package_that_is_missing_later_is_one_line(tmp_path: Path, repository: Path) -> None:
    """A package that a command imports when it starts: here one that an empty module of the same name hides."""
    program = (
        "import sys; sys.modules['ijson'] = None\n"
        "from pipelines.__main__ import main\n"
        "sys.exit(main(['prepare', '--dry-run']))"
    )
    done = _run(["-c", program], tmp_path, {"PYTHONPATH": str(repository)})
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "has no package ijson" in done.stderr


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    code = "import os; from pipelines import command_line as programs; os.setuid(54321); print(programs.user())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "uid-54321"
