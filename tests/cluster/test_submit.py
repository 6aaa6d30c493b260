"""What submit decides before anybody is asked: names, places, variables, secrets, package, command."""

import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import access, package, variables
from cluster.__main__ import main
from cluster.command import Ask, Command, ask_of
from cluster.errors import InputError
from cluster.jobs import Job, check_name, exit_code
from cluster.preflight import faults
from cluster.probe import look, versions
from cluster.token import write


def job(state: str, code: int | None = None) -> Job:
    return Job("a", "a", 1, state, "", {}, code)


@pytest.mark.parametrize(
    ("state", "code", "log", "meant"),
    [
        ("succeeded", 0, "", 0),
        ("failed", 2, "error: no such file", 2),
        ("failed", 1, "", 1),
        ("failed", 143, "", 143),
        ("failed", -9, "", 1),
        ("failed", 137, "", 1),
        ("failed", None, "", 1),
        ("stopped", None, "x\nstopped (exit code 143): shapes: checkpoint at step 7; the same command goes on\n", 143),
        ("stopped", None, '{"level": "warning", "message": "m", "state": "stopped", "exit_code": 143}\n', 143),
        ("stopped", None, "boxes 3/9 ...\n", 1),
        ("stopped", None, "stopped (exit code 143): x\nstep 1 of 2 ended with exit code 143\n", 143),
        ("stopped", None, "error: no such file\nwrong input: job a is stopped, so that it is not tried again\n", 2),
    ],
)
def test_exit_codes_mean_what_the_programs_mean(state: str, code: int | None, log: str, meant: int) -> None:
    assert exit_code(job(state, code), log) == meant


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", "x" * 64])
def test_a_name_that_is_no_submission_id_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="--id"):
        check_name(name)


def test_a_token_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_text()) == 64
    with pytest.raises(InputError, match="exists"):
        write(path)
    way = access.Access.of(SimpleNamespace(address="http://head:1", token_file=path))
    assert way.headers == {"Authorization": f"Bearer {path.read_text()}"}
    assert path.read_text() not in repr(way)
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        access.Access.of(SimpleNamespace(address="http://head:1", token_file=path))


@pytest.mark.parametrize("address", ["ftp://head", "http://", "http://head:port", "http://me:secret@head:1"])
def test_an_address_that_is_none_is_refused_without_its_password(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--address") as refused:
        access.Access.of(SimpleNamespace(address=address, token_file=None))
    assert "secret" not in str(refused.value)


def test_nobody_there_is_one_line() -> None:
    with pytest.raises(InputError, match="no Ray cluster answers"):
        access.connect(access.Access("http://127.0.0.1:1", {}))


def test_secrets_stay_here_unless_somebody_insists() -> None:
    there = {
        "MLFLOW_TRACKING_URI": "http://m",
        "MLFLOW_TRACKING_PASSWORD": "p",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_REGION": "r",
        "MLFLOW_REGISTRY_URI": "http://me:pass@m",
        "HOME": "/root",
        "WANTED": "w",
        "GOOGLE_APPLICATION_CREDENTIALS": __file__,
    }
    chosen = variables.choose(["WANTED"], False, there)
    assert chosen.values == {"MLFLOW_TRACKING_URI": "http://m", "AWS_REGION": "r", "WANTED": "w"}
    assert {*chosen.withheld} == {
        "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "MLFLOW_REGISTRY_URI", "GOOGLE_APPLICATION_CREDENTIALS",
    }  # fmt: skip
    assert "http://m" not in repr(chosen)
    with pytest.raises(InputError, match="looks like a secret"):
        variables.choose(["AWS_SECRET_ACCESS_KEY"], False, there)
    assert variables.choose(["AWS_SECRET_ACCESS_KEY"], True, there).values["AWS_SECRET_ACCESS_KEY"] == "s"
    with pytest.raises(InputError, match="not set here"):
        variables.choose(["NOWHERE"], False, there)


def test_a_password_in_the_command_line_is_refused_and_not_shown() -> None:
    with pytest.raises(InputError, match="holds a password") as refused:
        variables.check_words(["--storage", "s3://me:geheim@bucket/x"])
    assert "geheim" not in str(refused.value)


def test_the_package_is_the_checkout_without_what_is_written_there(tmp_path: Path) -> None:
    for name in ("a/b.py", "runs/x", "data/y", ".venv/z", "a/__pycache__/b.pyc", "tests/data/kept"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    with package.packed(tmp_path) as first, package.packed(tmp_path) as second:
        assert zipfile.ZipFile(first.path).namelist() == ["a/b.py", "tests/data/kept"]
        assert first.path.read_bytes() == second.path.read_bytes()
        assert first.files == 2


def test_a_package_that_is_too_large_names_the_largest(tmp_path: Path) -> None:
    import random

    (tmp_path / "weights.bin").write_bytes(random.Random(0).randbytes(50_000))
    (tmp_path / "small.py").write_text("")
    with pytest.raises(InputError, match=r"weights\.bin \(0\.0 MiB\)"), package.packed(tmp_path, limit=10_000):
        pass


def test_what_git_ignores_is_not_shipped(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("*.big\n")
    (tmp_path / "x.big").write_text("")
    (tmp_path / "new.py").write_text("")
    assert sorted(path.name for path in package.chosen(tmp_path)) == [".gitignore", "new.py"]


def test_a_command_is_a_program_of_this_checkout() -> None:
    for words in ([], ["--", "rm", "-rf", "x"], ["python", "-m", "http.server"]):
        with pytest.raises(InputError):
            Command.of(words)
    command = Command.of(["--", "python3", "-m", "pipelines", "run", "--out", "my runs", "--set=a=1", "--set", "b=2"])
    assert command.words[0] == "python"
    assert command.values("--set") == ["a=1", "b=2"]
    assert command.shell("/shared").endswith("&& mkdir -p /shared && cd /shared && exec " + str(command))
    assert "'my runs'" in command.shell(None)


def test_the_ask_is_that_of_the_resolved_settings() -> None:
    words = ["python", "-m", "pipelines", "train", "boxes", "--workers", "3-5", "--set", "compute.device=cuda"]
    assert ask_of(Command.of(words)) == Ask(3, "cuda", False)
    with pytest.raises(InputError, match="nonsense"):
        ask_of(Command.of([*words, "--set", "nonsense=1"]))


def facts(**changes: object) -> dict:
    node = {"name": "n1", "versions": versions(), "storage": ""}
    return {"resources": {"CPU": 2.0}, "nodes": [dict(node), {**node, "name": "n2", **changes}]}


def test_every_fault_of_a_cluster_is_one_line() -> None:
    assert faults(facts(), Ask(2), "/s") == []
    (few,) = faults(facts(), Ask(3), "/s")
    assert "wants 3 workers of one CPU each, and the cluster has 2 CPUs" in few
    assert faults(facts(), Ask(3, grows=True), "/s") == []
    (gpus,) = faults(facts(), Ask(1, "cuda"), "/s")
    assert "has 0 GPUs" in gpus
    (alone,) = faults(facts(storage="does not see what the head wrote"), Ask(), "/s")
    assert alone.startswith("storage /s is not shared: node n2")
    (old,) = faults(facts(versions={**versions(), "ray": "2.0.0"}), Ask(), "/s")
    assert "2.0.0 on node n2" in old
    (mute,) = faults(facts(silent="gone"), Ask(), "/s")
    assert "n2 does not answer" in mute


def test_the_probe_writes_reads_and_says_what_it_cannot(tmp_path: Path) -> None:
    assert look(str(tmp_path / "new"), "mark", True)["storage"] == ""
    assert look(str(tmp_path / "new"), "mark", False)["storage"] == ""
    (tmp_path / "file").write_text("")
    assert "exists" in look(str(tmp_path / "file"), "mark", True)["storage"].lower()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--", "python", "-m", "pipelines", "run"], "--storage DIR"),
        (["--storage", "shared", "--", "python", "-m", "pipelines", "run"], "path from /"),
        (["--storage", "/s", "--", "python", "-m", "pipelines", "run"], "ships"),
    ],
)
def test_dry_run_asks_nobody(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["submit", "--dry-run", *words])
    said = capsys.readouterr()
    assert told in said.out + said.err
    assert code == (0 if told == "ships" else 2)
