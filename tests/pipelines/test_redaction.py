"""No password is shown, logged or stored, wherever it came in and whoever made the text."""

import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from objgan.errors import InputError
from pipelines import command_line
from pipelines.redaction import install, place_of, redact, redact_all
from pipelines.runs.status import RunStatus
from pipelines.runtime import console
from pipelines.runtime.console import say
from pipelines.runtime.exit_codes import ended
from pipelines.storage.lease import typed
from pipelines.storage.storage import Storage
from pipelines.tracking.mlflow_client import mlflow_client
from pipelines.tracking.mlflow_tracker import MLflowTracker
from pipelines.tracking.tracker import tracked_run

SECRET = "hunter2-and-more"

# What is shown, and what of it has to stay.
TEXTS = {
    "a password": (f"http://u:{SECRET}@host:5000/x", "http://***@host:5000/x"),
    "a token as the user": (f"https://{SECRET}@host", "https://***@host"),
    "a password without a user": (f"redis://:{SECRET}@host:1/0", "redis://***@host:1/0"),
    "a database": (f"postgresql+psycopg://u:{SECRET}@db/mlflow?sslmode=require", "postgresql+psycopg://***@db/mlflow?sslmode=require"),
    "keys of a bucket": (f"s3://AKIA:{SECRET}@bucket/runs?region=eu", "s3://***@bucket/runs?region=eu"),
    "a password with a slash": (f"s3://AKIA:ab/{SECRET}@bucket/runs", "s3://***@bucket/runs"),
    "a password with an @": (f"http://u:a@{SECRET}@host/x", "http://***@host/x"),
    "a password with an @ and a slash": (f"http://u:a@b/{SECRET}@host/x", "http://***@host/x"),
    "a password with a question mark": (f"http://u:a?{SECRET}@host/x", "http://***@host/x"),
    "a password with a hash": (f"http://u:a#{SECRET}@host/x", "http://***@host/x"),
    "a password of digits and a slash": (f"http://u:12/{SECRET}@host", "http://***@host"),
    "a quoted password": (f"http://u:a%40{SECRET}@host", "http://***@host"),
    "an address of six parts": (f"http://u:{SECRET}@[::1]:5000/x", "http://***@[::1]:5000/x"),
    "a token in the query": (f"https://host/x?token={SECRET}&region=eu", "https://host/x?token=***&region=eu"),
    "a signature": (f"https://acc.blob.core.windows.net/c?sv=2024&sig={SECRET}", "sig=***"),
    "Amazon's signature": (f"https://b.s3/x?X-Amz-Credential=a&X-Amz-Signature={SECRET}", "X-Amz-Signature=***"),
    "a secret key in the query": (f"s3://b/x?secret_key={SECRET}&scheme=http", "secret_key=***&scheme=http"),
    "an unknown parameter": (f"s3://bucket/x?weird={SECRET}", "s3://bucket/x?weird=***"),
    "a parameter without a value": (f"https://host/x?{SECRET}", "https://host/x?***"),
    "a URI in the query": (f"s3://b/x?endpoint_override=http%3A%2F%2Fu%3A{SECRET}%40host", "endpoint_override=***"),
    "a fragment": (f"https://host/x#access_token={SECRET}", "https://host/x#***"),
    "a fragment with a query": (f"https://host/#/experiments/1?token={SECRET}", "https://host/#/experiments/1?token=***"),
    "two in a line": (f"from http://a:{SECRET}@x to http://b:{SECRET}@y: no", "from http://***@x to http://***@y: no"),
    "a URI that became a path": (f"http:/u:{SECRET}@host/x", "http:/***@host/x"),
    "in quotes": (f"cannot open 'http://u:{SECRET}@host/x'", "cannot open 'http://***@host/x'"),
    "in brackets": (f"(http://u:{SECRET}@host/x): try", "(http://***@host/x): try"),
    "a proxy": (f"ProxyError('http_proxy=http://u:{SECRET}@proxy:3128')", "http_proxy=http://***@proxy:3128"),
    "a path with a query": (f"exceeded with url: /api/2.0/x?access_token={SECRET}&a=1", "access_token=***&a=1"),
    "libpq's parameters": (f"host=db password={SECRET} user=u", "host=db password=*** user=u"),
    "libpq's parameters in quotes": (f"host=db password='{SECRET} x' user=u", "host=db password='***' user=u"),
    "a keyword": (f"connect(host='db', password='{SECRET}')", "password='***'"),
    "JSON": (json.dumps({"user": "u", "password": SECRET}), '"user": "u", "password": "***"'),
    "a header": (f"Authorization: Bearer {SECRET}", "Bearer ***"),
    "another header": ("Authorization: Basic dTpodW50ZXIyLWFuZC1tb3Jl", "Basic ***"),
    "an assignment": (f"AWS_SECRET_ACCESS_KEY={SECRET} python -m pipelines", "AWS_SECRET_ACCESS_KEY=*** python"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_a_secret_is_hidden_and_the_rest_stays(name: str) -> None:
    text, stays = TEXTS[name]
    shown = redact(text)
    assert SECRET not in shown and "dTpod" not in shown, shown
    assert stays in shown
    assert redact(shown) == shown, "twice is as once"


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/me/objgan/runs/mlflow.db",
        "s3://bucket/folder?endpoint_override=127.0.0.1:5000&scheme=http&region=us-east-1",
        "models:/objgan@champion and runs:/0123/model",
        "http://host:5000/#/experiments/1/runs/2",
        "https://ui.perfetto.dev",
        "s3://bucket/dir@2024/x",
        "docs: https://www.mlflow.org/docs/latest/tracking.html#where",
        "the token: see cluster/README.md; tokens 5, max_tokens=5; secret: none",
        "boxes.training.lr: 0.1 -> 0.2; a password is missing",
        "mail me@example.org about 3 x 4 @ 5",
    ],
)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_secrets_of_the_environment_are_hidden_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:p%40ssw0rd-7@proxy:3128")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN_PATH", "/run/secrets/token-file")
    text = redact(
        "login correct horse failed; wJalrXUtnFEMI/K7MDENG; p@ssw0rd-7; p%40ssw0rd-7; /run/secrets/token-file"
    )
    assert text == "login *** failed; ***; ***; ***; /run/secrets/token-file"


def test_places_are_named_without_user_and_query() -> None:
    assert place_of(f"s3://id:{SECRET}@bucket/a?x=1") == "s3://bucket/a"
    assert place_of("s3://bucket/a") == "s3://bucket/a" and place_of("runs/first") == "runs/first"
    assert place_of(f"http://u:{SECRET} with a blank@host/a") == "http://host/a"
    assert redact_all({"a": [f"http://u:{SECRET}@h"], "b": 1, "c": None}) == {"a": ["http://***@h"], "b": 1, "c": None}


def test_lines_of_a_command_hide_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"http://u:{SECRET}@host"
    for form in ("text", "json"):
        console.choose(form, "run")
        try:
            say(f"MLflow: {uri}")
            logging.getLogger("pipelines.x").warning("MLflow: %s", uri, extra={"values": {"uri": uri}})
            console.last_word("failed", 1, f"cannot reach {uri}")
            ended(InputError(f"cannot use {uri}"))
            try:
                raise RuntimeError(f"no answer from {uri}") from OSError(f"proxy {uri}")
            except RuntimeError as error:
                ended(error)
        finally:
            console.choose("text", None)
    shown = "".join(capsys.readouterr())
    assert SECRET not in shown and shown.count("http://***@host") >= 10


def test_records_of_libraries_and_warnings_hide_secrets(caplog, capsys) -> None:
    install()
    install()
    uri = f"http://u:{SECRET}@host"
    logging.getLogger("some.library").warning("cannot reach %s (%s)", uri, {"password": SECRET})
    try:
        raise ValueError(uri)
    except ValueError:
        logging.getLogger("some.library").exception("failed")
    wrong = logging.getLogRecordFactory()("x", logging.ERROR, "a.py", 1, "50 %", ("wrong",), None)
    assert wrong.msg == "50 %", "a record that cannot be shown is for logging to report"
    assert caplog.records[0].getMessage().startswith("cannot reach http://***@host")
    assert SECRET not in caplog.text and "http://***@host" in (caplog.records[1].exc_text or "")
    assert SECRET not in warnings.formatwarning(uri, UserWarning, "a.py", 1, "pass")


def test_errors_of_options_hide_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    parser = command_line.Parser(prog="x")
    parser.add_subparsers().add_parser("y").add_argument("--n", type=int)
    for words in (["y", "--n", f"s3://a:{SECRET}@b"], ["y", f"--data=s3://a:{SECRET}@b"]):
        with pytest.raises(SystemExit):
            parser.parse_args(words)
    shown = capsys.readouterr().err
    assert SECRET not in shown and "s3://***@b" in shown


def test_what_is_stored_of_a_run_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["/x/pipelines/__main__.py", "train", "--storage", f"s3://a:{SECRET}@b/c?region=eu"]
    )
    assert typed() == "python -m pipelines train --storage 's3://b/c?region=eu'"
    uri = f"http://u:{SECRET}@h"
    status = RunStatus("failed", "boxes", error=f"no {uri}", reason=uri, command=f"python --data {uri}")
    status.save(Storage(tmp_path))
    assert SECRET not in (tmp_path / "status.json").read_text()
    assert RunStatus.load(Storage(tmp_path)).error == "no http://***@h"  # type: ignore[union-attr]


def test_what_is_kept_for_mlflow_holds_no_secret(tmp_path: Path) -> None:
    """The server is away: all that is told is on the disk, and there it can be read."""
    tracker = MLflowTracker(f"http://u:{SECRET}@127.0.0.1:9", None, Storage(tmp_path))
    tracker.parameters({"data": f"s3://a:{SECRET}@b"})
    tracker.close()
    kept = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "s3://***@b" in kept and SECRET not in kept


def test_tags_in_mlflow_hold_no_secret(tmp_path: Path) -> None:
    from pipelines.tracking.tracker import prepare_store

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    prepare_store(uri)
    with tracked_run(uri, "run", Storage(tmp_path), {"from": f"s3://a:{SECRET}@b"}) as tracking:
        tracking.tracker().parameters({"data": f"s3://a:{SECRET}@b"})
    data = mlflow_client(uri).get_run(str(tracking.run)).data
    assert data.tags["from"] == "s3://***@b" and data.params["data"] == "s3://***@b"
    assert SECRET.encode() not in (tmp_path / "mlflow.db").read_bytes()


STORES = {
    "postgresql": (f"postgresql://u:{SECRET}@localhost:1/db", "needs the Python package psycopg"),
    "postgresql by psycopg2": (f"postgresql+psycopg2://u:{SECRET}@localhost:1/db", "package psycopg2-binary"),
    "mysql": (f"mysql+pymysql://u:{SECRET}@localhost:1/db", "package PyMySQL, which is not installed: run `"),
    "mysql by its own": (f"mysql://u:{SECRET}@localhost:1/db", "package mysqlclient"),
    "mssql": (f"mssql+pyodbc://u:{SECRET}@localhost:1/db", "package pyodbc"),
    "no such driver": (f"postgresql+nope://u:{SECRET}@x/y", "not the address of a store"),
    "no port": (f"postgresql://u:a/{SECRET}@localhost:port/db", "not the address of a store"),
    "no such database": (f"foo://u:{SECRET}@x/y", "cannot use foo://x/y"),
    "no server": (f"http://u:{SECRET}@127.0.0.1:9", "cannot use http://127.0.0.1:9"),
    "no host": (f"http://u:{SECRET}@bad host", "cannot use http://bad host"),
}


@pytest.mark.parametrize("name", STORES)
def test_a_store_that_cannot_be_used_is_one_line_without_its_password(name: str) -> None:
    from pipelines.tracking.tracker import prepare_store

    uri, told = STORES[name]
    with pytest.raises(InputError) as caught:
        prepare_store(uri)
    message = str(caught.value)
    assert told in redact(message) and SECRET not in message and len(message) < 600


@pytest.mark.parametrize("store", ["postgresql", "no server"])
def test_a_command_says_so_with_exit_code_2(model_folder: Path, repository: Path, tmp_path: Path, store: str) -> None:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": STORES[store][0]}
    for form in ("text", "json"):
        words = [sys.executable, "-m", "pipelines", "register", "--model", str(model_folder), "--log-format", form]
        done = subprocess.run(words, cwd=repository, env=environment, capture_output=True, text=True)
        assert done.returncode == 2 and SECRET not in done.stdout + done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert STORES[store][1] in line


def test_a_dry_run_shows_no_password(repository: Path) -> None:
    words = ["train", "boxes", "--dry-run", "--data", f"http://a:{SECRET}@127.0.0.1/c"]
    words += ["--set", f"shapes.vgg_weights=http://u:{SECRET}@host/vgg.pth"]
    done = subprocess.run([sys.executable, "-m", "pipelines", *words], cwd=repository, capture_output=True, text=True)
    assert SECRET not in done.stdout + done.stderr
