"""`python -m pipelines studio` as a command: where it listens, what it says, how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from objgan.errors import InputError
from pipelines.__main__ import main
from pipelines.studio.server import address_of, is_reachable, listen


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["studio", "--port", str(taken.getsockname()[1])]) == 2
    text = capsys.readouterr().err
    assert re.fullmatch(r"error: cannot listen at 127.0.0.1, port \d+ \(Address already in use\): .*--port.*\n", text)


@pytest.mark.parametrize(
    ("host", "said"), [("no-such-host.invalid", "unknown host"), ("192.0.2.1", "cannot listen at")]
)
def test_a_host_of_no_machine_or_another_one_is_refused(host: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        listen(host, 0)


@pytest.mark.parametrize("port", ["65536", "-1", "http"])
def test_a_port_is_a_number_of_16_bits(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["studio", "--port", port])
    assert end.value.code == 2 and "--port" in capsys.readouterr().err


def test_without_a_host_only_this_machine_reaches_it() -> None:
    with listen("127.0.0.1", 0) as here, listen("0.0.0.0", 0) as everywhere:
        assert not is_reachable(here) and is_reachable(everywhere)
        assert address_of(everywhere) == f"http://127.0.0.1:{everywhere.getsockname()[1]}/"


def test_no_model_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["studio", "--model", str(tmp_path / "nothing"), "--port", "0"]) == 2
    assert "nothing" in (text := capsys.readouterr().err) and len(text.splitlines()) == 1


def test_it_warns_writes_no_file_and_ends_with_ctrl_c(model_folder: Path, repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "studio", "--model", str(model_folder), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(repository), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [*command, "--host", "0.0.0.0"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stderr
        try:
            assert process.stdout.readline().startswith("warning: --host 0.0.0.0: ")
            line = process.stdout.readline()
            found = re.match(r"studio: (http://127.0.0.1:\d+/) draws with ", line)
            assert found, line
            with urllib.request.urlopen(found[1]) as answer:
                assert b"objgan studio" in answer.read()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stdout.read() == "studio ended\n" and process.stderr.read() == ""
    assert list(tmp_path.iterdir()) == []
