"""Decisions of `submit` before it contacts a cluster: names, places, variables, secrets, package, command."""

import os
import re
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.__main__ import main
from cluster.jobs import auth, environment, package
from cluster.jobs.auth import write
from cluster.jobs.command import Ask, Command, ask_of
from cluster.jobs.preflight import faults
from cluster.jobs.probe import look, remove, versions
from cluster.jobs.ray_jobs import Job, check_name, exit_code
from cluster.jobs.secret_files import Secrets
from cluster.jobs.submit import SubmitOptions, _check, _submission
from objgan.errors import InputError


def job(state: str, code: int | None = None) -> Job:
    return Job("a", "a", 1, state, "", {}, code)


@pytest.mark.parametrize(
    ("state", "code", "log", "meant"),
    [
        ("succeeded", 0, "", 0),
        ("failed", 2, "error: no such file", 2),
        ("failed", 1, "", 1),
        ("failed", 3, "declined (exit code 3): not promoted", 3),
        ("failed", 143, "", 143),
        ("failed", -9, "", 1),
        ("failed", 137, "", 1),
        ("failed", None, "", 1),
        ("stopped", None, "x\nstopped (exit code 143): shapes: checkpoint at step 7; the same command goes on\n", 143),
        ("stopped", None, '{"level": "warning", "message": "m", "state": "stopped", "exit_code": 143}\n', 143),
        ("stopped", None, "boxes 3/9 ...\n", 1),
        ("stopped", None, "stopped (exit code 143): x\nstep 1 of 2 ended with exit code 143\n", 143),
        ("stopped", None, "error: no such file\nexit code 2: job a is stopped, so that it is not tried again\n", 2),
        ("stopped", None, "declined (exit code 3): not promoted\nexit code 3: job a is stopped, so that\n", 3),
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
    way = auth.Access.of(SimpleNamespace(address="http://head:1", token_file=path))
    assert way.headers == {"Authorization": f"Bearer {path.read_text()}"}
    assert path.read_text() not in repr(way)
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        auth.Access.of(SimpleNamespace(address="http://head:1", token_file=path))


@pytest.mark.parametrize("address", ["ftp://head", "http://", "http://head:port", "http://me:secret@head:1"])
def test_a_wrong_address_is_refused_without_its_password(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--address") as refused:
        auth.Access.of(SimpleNamespace(address=address, token_file=None))
    assert "secret" not in str(refused.value)


def test_no_answer_is_one_line() -> None:
    with pytest.raises(InputError, match="no Ray cluster answers"):
        auth.connect(auth.Access("http://127.0.0.1:1", {}))


def test_secrets_are_not_passed_unless_the_user_insists() -> None:
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
    chosen = environment.choose(["WANTED"], False, there)
    assert chosen.values == {"MLFLOW_TRACKING_URI": "http://m", "AWS_REGION": "r", "WANTED": "w"}
    assert {*chosen.withheld} == {
        "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "MLFLOW_REGISTRY_URI", "GOOGLE_APPLICATION_CREDENTIALS",
    }  # fmt: skip
    assert "http://m" not in repr(chosen)
    with pytest.raises(InputError, match="looks like a secret"):
        environment.choose(["AWS_SECRET_ACCESS_KEY"], False, there)
    assert environment.choose(["AWS_SECRET_ACCESS_KEY"], True, there).values["AWS_SECRET_ACCESS_KEY"] == "s"
    with pytest.raises(InputError, match="not set here"):
        environment.choose(["NOWHERE"], False, there)


def test_a_password_in_the_command_line_is_refused_and_not_shown() -> None:
    with pytest.raises(InputError, match="holds a password") as refused:
        environment.check_words(["--storage", "s3://me:geheim@bucket/x"])
    assert "geheim" not in str(refused.value)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A checkout with two tracked files, one of them in a folder, and what lies about in a checkout."""
    folder = tmp_path / "clone"
    for name in ("a/b.py", "tests/data/kept", "new.py", "out/big.bin", "runs/x", "a/__pycache__/b.pyc"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".gitignore").write_text("out/\nruns/\n__pycache__/\n")
    git(folder, "init", "-q")
    git(folder, "add", "a/b.py", "tests", ".gitignore")
    return folder


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)


def shipped(checkout: Path, *include: str, insist: bool = False, known: tuple[str, ...] = ()) -> list[str]:
    named = [checkout / path for path in include]
    with package.packed(checkout, named, Secrets(known, insist)) as made:
        return zipfile.ZipFile(made.path).namelist()


def test_the_package_has_tracked_and_included_files(clone: Path) -> None:
    assert shipped(clone) == [".gitignore", "a/b.py", "tests/data/kept"]
    assert shipped(clone, "new.py", "out") == [".gitignore", "a/b.py", "new.py", "out/big.bin", "tests/data/kept"]
    with package.packed(clone) as first, package.packed(clone) as second:
        assert first.path.read_bytes() == second.path.read_bytes()
        assert (first.files, first.left) == (3, ("new.py",))


@pytest.mark.parametrize("path", ["nowhere", "../outside", "link"])
def test_include_accepts_only_paths_in_the_checkout(clone: Path, path: str) -> None:
    (clone.parent / "outside").write_text("x")
    (clone / "link").symlink_to(clone.parent / "outside")
    with pytest.raises(InputError, match="--include"):
        shipped(clone, path)


def test_a_tracked_file_that_is_gone_or_links_elsewhere_is_left_out(clone: Path) -> None:
    (clone.parent / "outside").write_text("x")
    (clone / "link").symlink_to(clone.parent / "outside")
    git(clone, "add", "link")
    (clone / "a" / "b.py").unlink()
    assert shipped(clone) == [".gitignore", "tests/data/kept"]


def test_a_package_that_is_too_large_names_the_largest(clone: Path) -> None:
    import random

    (clone / "weights.bin").write_bytes(random.Random(0).randbytes(50_000))
    git(clone, "add", "weights.bin")
    with pytest.raises(InputError, match=r"weights\.bin \(0\.0 MiB\)"), package.packed(clone, limit=10_000):
        pass


HEX = "0123456789abcdef" * 4
KEY = f"-----BEGIN {'RSA '}PRIVATE KEY-----\nMIIEowIBAAKCAQEA0123456789\n"
SECRET_FILES = {
    "TOKEN": "x", "ray-token": "x", "auth_token.txt": "x", "conf/hf-token.json": "x", ".env": "A=b",
    ".env.local": "A=b", "prod.env": "A=b", "deploy/.env": "A=b", ".netrc": "x", ".git-credentials": "x",
    ".npmrc": "x", ".pypirc": "x", "kubeconfig": "x", "my-kubeconfig.yaml": "x", ".kube/config": "x",
    ".aws/credentials": "x", ".ssh/id_rsa": "x", "id_ed25519": "x", "server.key": "x", "store.p12": "x",
    "store.jks": "x", "db.kdbx": "x", "x.ovpn": "x", "terraform.tfstate": "{}", "secrets.yaml": "x",
    "credentials.json": "{}", "passwords.csv": "x", "api_key": "x", "apikey.txt": "x", "notes.txt": KEY,
    "cert.pem": KEY, "one_line.json": KEY.replace("\n", "\\n"), "plain": HEX, "word.dat": f"{HEX}\n",
    "conf.ini": f"aws_secret_access_key = {'A1b2' * 10}", "x.py": f"KEY = '{'AKIA' + 'A1B2' * 4}'",
    "y.py": f"t = '{'ghp' + '_' + 'a1B2' * 9}'", "z.md": f"{'hf' + '_' + 'a1B2' * 9}",
    "g.js": f"{'AIza' + 'a1B2c' * 7}", "s.txt": f"{'sk' + '-' + 'a1B2' * 9}",
    "gl.yml": f"{'glpat' + '-' + 'a1B2' * 5}", "sl.yml": f"{'xoxb' + '-' + '1' * 24}",
    "jwt.txt": f"{'eyJ' + 'a' * 20}.{'eyJ' + 'b' * 20}.{'c' * 20}",
    "k.yaml": "users:\n- user:\n    client-key-data: QUJD\n", "n.txt": "machine a.b login c password d\n",
    "sops.asc": "x", ".vault-token": "x", ".docker/config.json": "{}",
}  # fmt: skip
PLAIN_FILES = {
    "token.py": "x", "tokenizer.json": "{}", "tokens.md": "x", "test_secrets.py": "x", ".env.example": "A=",
    "env.py": "x", "public.pem": "-----BEGIN CERTIFICATE-----\nMIIE\n", "id_rsa.pub": "ssh-rsa AAAA",
    "keyboard.txt": "x", "monkey.csv": "x", "a" * 64: "x", "hash.txt": "sha256 of x", "text.txt": "abc",
    "digits.txt": "1" * 64, "words.txt": "a" * 64, "envelope.txt": "x",
    "about-private-keys.md": "-----BEGIN PRIVATE KEY----- stands at the start of a key",
}  # fmt: skip


@pytest.mark.parametrize("name", SECRET_FILES)
def test_a_file_that_looks_like_a_secret_is_not_shipped(clone: Path, name: str) -> None:
    (clone / name).parent.mkdir(parents=True, exist_ok=True)
    (clone / name).write_text(SECRET_FILES[name])
    with pytest.raises(InputError, match="move it out of the checkout") as named:
        shipped(clone, name)
    assert str(named.value).startswith(f"{name} h") and HEX not in str(named.value)
    git(clone, "add", "--force", name)
    with pytest.raises(InputError, match="git rm --cached"):
        shipped(clone)
    assert name in shipped(clone, name, insist=True)


@pytest.mark.parametrize("name", PLAIN_FILES)
def test_a_file_that_only_sounds_like_a_secret_is_shipped(clone: Path, name: str) -> None:
    (clone / name).write_text(PLAIN_FILES[name])
    assert name in shipped(clone, name)


def test_a_link_to_a_secret_and_the_cluster_s_own_token_are_not_shipped(clone: Path) -> None:
    (clone / ".env").write_text("A=b")
    (clone / "harmless.txt").symlink_to(clone / ".env")
    with pytest.raises(InputError, match="name of a secret"):
        shipped(clone, "harmless.txt")
    (clone / "new.py").write_text("TOKEN = 'the cluster has this one'")
    with pytest.raises(InputError, match="cluster's token"):
        shipped(clone, "new.py", known=("the cluster has this one",))


def test_this_checkout_is_shipped(repository: Path) -> None:
    for file in package.chosen(repository):
        Secrets().check(file, repository, file.read_bytes())


def test_without_git_nothing_is_shipped(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "x.py").write_text("x")
    with pytest.raises(InputError, match="git does not list"):
        shipped(plain)
    git(plain, "init", "-q")
    with pytest.raises(InputError, match="git tracks no file"):
        shipped(plain)
    monkeypatch.setenv("GIT_DIR", str(plain / ".git"))
    assert "a/b.py" in shipped(clone)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="git is not installed"):
        shipped(clone)


def test_a_checkout_that_git_distrusts_is_refused(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(clone.parent))
    if os.getuid():
        pytest.skip("only root can give a folder to another user")
    for path in (clone, clone / ".git"):
        os.chown(path, 12345, 12345)
    with pytest.raises(InputError, match=r"git distrusts .* safe\.directory"):
        shipped(clone)


def test_a_name_that_is_not_utf8_is_refused(clone: Path) -> None:
    name = os.fsdecode(b"bad-\xff.py")
    (clone / name).write_text("x")
    with pytest.raises(InputError, match="not UTF-8"):
        shipped(clone, name)


def test_a_token_is_not_made_in_the_checkout(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to(repository)
    for path in (repository / "TOKEN", repository / "runs" / "TOKEN", tmp_path / "link" / "TOKEN"):
        assert main(["token", str(path)]) == 2
        assert "is in the checkout" in capsys.readouterr().err and not path.exists()
    assert main(["token", str(tmp_path / "deep" / "er" / "token")]) == 0
    assert (tmp_path / "deep" / "er").stat().st_mode & 0o77 == 0
    (tmp_path / "file").write_text("")
    capsys.readouterr()
    assert main(["token", str(tmp_path / "file" / "token")]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon", "99999"])
def test_the_time_for_checks_is_bounded(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["submit", f"--check-timeout={seconds}", "--", "python", "-m", "pipelines", "runs"])
    assert refused.value.code == 2 and "from 1 to 3600" in capsys.readouterr().err


def test_a_command_is_a_program_of_this_checkout() -> None:
    for words in ([], ["--", "rm", "-rf", "x"], ["python", "-m", "http.server"]):
        with pytest.raises(InputError):
            Command.of(words)
    command = Command.of(["--", "python3", "-m", "pipelines", "run", "--out", "my runs", "--set=a=1", "--set", "b=2"])
    assert command.words[0] == "python"
    assert command.values("--set") == ["a=1", "b=2"]
    assert command.shell("/shared").endswith("&& mkdir -p /shared && cd /shared && exec " + str(command))
    assert "'my runs'" in command.shell(None)


def test_resources_are_those_of_the_resolved_settings() -> None:
    words = ["python", "-m", "pipelines", "train", "boxes", "--workers", "3-5", "--set", "compute.device=cuda"]
    assert ask_of(Command.of(words)) == Ask(3, "cuda", False)
    # Neither the data nor the groups of a stage's batch are looked at here.
    assert ask_of(Command.of([*words[:4], "encoders", "--data", "/nowhere", "--workers", "5"])) == Ask(5)
    assert ask_of(Command.of(["python", "-m", "pipelines", "prepare", "--recipe", "paper"])) == Ask(1, "cpu")
    assert ask_of(Command.of(["python", "-m", "tune", "boxes", "--workers", "2"])) == Ask(2)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--set", "nonsense=1"], "unknown setting nonsense"),
        (["--set", "compute.workers=1"], "sets compute.workers twice"),
        (["--set=compute.device=cpu"], "sets compute.device twice"),
        (["--workers", "2"], "sets --workers twice"),
        (["--recipe", "tny"], "did you mean tiny?"),
        (["--config", "nowhere.yaml"], "--config: cannot read"),
    ],
)
def test_wrong_settings_of_a_command_are_refused(more: list[str], expected: str) -> None:
    words = ["python", "-m", "pipelines", "train", "boxes", "--workers", "3-5", "--set", "compute.device=cuda"]
    with pytest.raises(InputError, match=re.escape(expected)):
        ask_of(Command.of([*words, *more]))


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


def test_every_fault_is_printed_as_an_error_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    options = SubmitOptions(words=("python", "-m", "pipelines", "runs"), storage="/s")
    with pytest.raises(InputError, match="node n2") as last:
        _check(_submission(options), Ask(3), facts(versions={**versions(), "ray": "2.0.0"}))
    (first,) = capsys.readouterr().err.splitlines()
    assert first.startswith("error: the command wants 3 workers") and "\n" not in str(last.value)


def test_the_probe_writes_and_reads_and_reports_errors(tmp_path: Path) -> None:
    assert look(str(tmp_path / "new"), "mark", True)["storage"] == ""
    assert look(str(tmp_path / "new"), "mark", False)["storage"] == ""
    (tmp_path / "file").write_text("")
    assert "exists" in look(str(tmp_path / "file"), "mark", True)["storage"].lower()


def test_the_probe_removes_its_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "new" / "er"):
        new = [str(path) for path in (folder, folder.parent) if not path.exists()]
        look(str(folder), "objgan-test-mark", True)
        remove(str(folder), "objgan-test-mark", new)
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and not list((tmp_path / "there").iterdir())
    look(str(tmp_path / "used"), "objgan-test-mark", True)
    (tmp_path / "used" / "results").write_text("")
    remove(str(tmp_path / "used"), "objgan-test-mark", [str(tmp_path / "used")])
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["results"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--", "python", "-m", "pipelines", "run"], "--storage DIR"),
        (["--storage", "shared", "--", "python", "-m", "pipelines", "run"], "path from /"),
        (["--storage", "/s", "--", "python", "-m", "pipelines", "run"], "ships"),
        (["--storage", "/s", "--", "python", "-m", "pipelines", "run", "--set", "a=1"], "unknown setting a"),
    ],
)
def test_dry_run_sends_nothing(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["submit", "--dry-run", *words])
    said = capsys.readouterr()
    assert expected in said.out + said.err
    assert code == (0 if expected == "ships" else 2)
