"""Storage that refuses: wrong input before the first step, a failure of the infrastructure after it.

The faults are real: an S3 server that begins to answer 403, a file system that is mounted read-only.
"""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from objgan.config import Config
from objgan.errors import InputError
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import Options, prepare
from pipelines.models.registry import register
from pipelines.runs.status import JobStatus, RunStatus
from pipelines.runtime.exit_codes import ended, run_command
from pipelines.storage.retry import StorageAway, StorageLost, StorageRefused, Work, settled
from pipelines.storage.storage import Storage
from pipelines.training.driver import train
from pipelines.training.job import OpenRun, TrainJob, open_run
from tests.tools.refusing_server import Refusing, refusing_server
from tests.tools.training import Command, small_config, wait_until

REFUSALS = [
    (403, "AccessDenied"),
    (403, "InvalidAccessKeyId"),
    (403, "SignatureDoesNotMatch"),
    (401, "Unauthorized"),
    (400, "ExpiredToken"),
    (400, "InvalidToken"),
    (400, "TokenRefreshRequired"),
    (405, "MethodNotAllowed"),
]


@pytest.fixture
def endpoint(s3_server: str) -> Iterator[Refusing]:
    with refusing_server(s3_server) as server:
        yield server


@pytest.fixture
def place(s3: str, s3_server: str, endpoint: Refusing) -> str:
    """URI of a new folder behind the endpoint."""
    return s3.replace(s3_server, endpoint.address)


@pytest.mark.parametrize("refusal", REFUSALS, ids=[name for _, name in REFUSALS])
def test_every_operation_that_is_refused_is_one_kind_of_error(
    place: str, endpoint: Refusing, refusal: tuple[int, str], tmp_path: Path
) -> None:
    storage = Storage(place, patience=5.0)
    storage.write("there", "x")
    endpoint.refuse = refusal
    operations: list[Callable[[], object]] = [
        lambda: storage.write("x", "y"),
        lambda: storage.read("there"),
        lambda: storage.names(),
        lambda: storage.delete("there"),
    ]
    for operation in operations:
        with pytest.raises(StorageRefused, match="check the location and the right to use it") as caught:
            operation()
        assert len(str(caught.value).splitlines()) == 1 and "hush" not in str(caught.value)
        lost = settled(caught.value, advanced=True)
        assert isinstance(lost, StorageLost) and "it worked before" in str(lost) and lost.__cause__ is caught.value
        assert (ended(caught.value), ended(lost)) == (2, 1)


def test_a_bucket_that_is_gone_takes_no_file(place: str, endpoint: Refusing) -> None:
    storage = Storage(place, patience=5.0)
    endpoint.refuse = (404, "NoSuchBucket")
    with pytest.raises(StorageRefused):
        storage.write("x", "y")
    assert storage.names() == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_refusal_of_a_file_outside_of_storage_is_judged_alike(number: int) -> None:
    raw = OSError(number, os.strerror(number), "/data/x")
    assert isinstance(settled(raw, advanced=False), InputError)
    assert isinstance(settled(raw, advanced=True), StorageLost)
    assert "/data/x" in str(settled(raw, advanced=True))


@pytest.mark.parametrize(
    "error",
    [
        *(ValueError("x"), InputError("x"), StorageAway("x"), OSError(errno.ENOSPC, "full", "/x"), SystemExit(143)),
        *(KeyboardInterrupt(), PermissionError(errno.EPERM, "of a process, not of a file")),
    ],
)
def test_what_is_no_refusal_stays_as_it_is(error: BaseException) -> None:
    assert settled(error, advanced=True) is error and settled(error, advanced=False) is error


def test_work_that_has_advanced_turns_a_refusal_into_a_failure() -> None:
    for advanced, expected in ((False, StorageRefused), (True, StorageLost)):
        work = Work()
        work.advanced = advanced
        with pytest.raises(expected), work:
            raise StorageRefused("x")


@pytest.fixture
def read_only(small_disk: Path) -> Callable[[], None]:
    """Mounts the small disk read-only when it is called."""

    def remount() -> None:
        # Files that are open for writing would forbid it: what is tried again, closes in between.
        done = None
        for _ in range(200):
            done = subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], capture_output=True, text=True)
            if not done.returncode:
                return
        pytest.fail(f"cannot remount: {done.stderr if done else ''}")

    return remount


def test_work_beside_training_whose_place_turns_read_only(small_disk: Path, read_only: Callable[[], None]) -> None:
    """`prepare`, `evaluate`, `judges` and `run` work within a `JobStatus`."""
    storage = Storage(small_disk / "out")
    for advance, code in ((False, 2), (True, 1)):

        def work(advance: bool = advance) -> None:
            with JobStatus(storage, "prepare", None) as job_status:
                if advance:
                    job_status.progress(1, 2)
                subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
                (small_disk / "out" / "shard").write_bytes(b"x")

        assert run_command(work) == code
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


def test_a_sample_whose_disk_turns_read_only(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small_disk)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "sample", "--images", "5000", "--out", str(small_disk / "s")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(list(small_disk.glob("s/images/*"))) > 3 or process.poll() is not None)
    wait_until(lambda: not os.system(f"mount -o remount,ro '{small_disk}' 2>/dev/null"), 60)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and "it worked before" in said and "Traceback" not in said, said


def test_credentials_that_expire_while_images_are_read(
    place: str, endpoint: Refusing, write_coco, scenes, data_config: Config, tmp_path: Path
) -> None:
    """No image is rejected for it: the shard that could not be read is made when the same command is given again."""
    source = write_coco(tmp_path / "coco", *scenes(40))
    Storage(place).upload(source.images, "images")
    remote = replace(source, images=Storage(place).child("images").uri)

    class Expiring(JobStatus):
        def progress(self, done: int, total: int, samples: int = 0) -> None:
            super().progress(done, total, samples)
            endpoint.refuse = (400, "ExpiredToken") if done == 1 else None

    def convert() -> None:
        with Expiring(Storage(tmp_path / "out"), "prepare", None) as job_status:
            prepare(remote, tmp_path / "out", data_config, run_here, Options(job_status=job_status))

    assert run_command(convert) == 1
    status = RunStatus.load(Storage(tmp_path / "out"))
    assert status is not None and status.state == "failed" and "it worked before" in str(status.error)
    endpoint.refuse = None
    manifest = prepare(remote, tmp_path / "out", data_config, run_here)
    assert sum(manifest["rows"].values()) == 40 and manifest["rejected"]["rows"] == 0
    endpoint.refuse = (403, "AccessDenied")
    assert run_command(lambda: prepare(remote, tmp_path / "new", data_config, run_here) and None) == 2


def test_a_registry_that_refuses_after_hours_is_no_wrong_input(model_folder: Path, tmp_path: Path) -> None:
    """As the last step of `run`: the server is gone, or the password has changed."""
    with refusing_server("127.0.0.1:9") as server:
        for refusal in ((401, "Unauthorized"), (403, "Forbidden"), (500, "Broken")):
            server.refuse = refusal
            for advanced, expected in ((False, StorageRefused), (True, StorageLost)):
                work = Work()
                work.advanced = advanced
                with pytest.raises(expected, match="MLflow"), work:
                    register(model_folder, tracking_uri=f"http://{server.address}")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("refusal", [REFUSALS[0], REFUSALS[4], REFUSALS[5]], ids=["403", "401", "expired"])
def test_credentials_that_expire_in_a_run_are_no_wrong_input(
    prepared: Path,
    data_config: Config,
    tmp_path: Path,
    place: str,
    endpoint: Refusing,
    refusal: tuple[int, str],
    ray_local: None,
    logs: list[str],
) -> None:
    job = TrainJob("shapes", small_config(data_config, steps=4000), prepared, tmp_path / "shapes", storage=place)

    def expire() -> None:
        wait_until(lambda: Storage(place).exists("step_00000010/state.json"))
        endpoint.refuse = refusal

    thread = threading.Thread(target=expire, daemon=True)
    thread.start()
    with pytest.raises(StorageLost, match="it worked before") as caught:
        train(open_run(job))
    thread.join(10)
    assert ended(caught.value) == 1
    assert any("cannot remove" in line and ".ray" in line for line in logs), "the clean-up fails, too, and is logged"
    # The same command, given while storage still refuses: nothing was done yet, so it is wrong input.
    with pytest.raises(StorageRefused) as refused:
        train(open_run(job))
    assert ended(refused.value) == 2
    endpoint.refuse = None
    assert (found := OpenRun(job).checkpoints.newest()) is not None and int(found[0][-8:]) >= 10


@pytest.mark.ray
@pytest.mark.slow
def test_a_disk_that_turns_read_only_in_a_run_is_no_wrong_input(
    prepared: Path, data_config: Config, tmp_path: Path, repository: Path
) -> None:
    disk, process = tmp_path / "disk", None
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=64m tmpfs {disk} 2>/dev/null"):
        pytest.skip("no permission to mount a file system")
    try:
        command = Command(tmp_path / "work", repository, small_config(data_config, steps=4000), prepared)
        folder = disk / "r" / "shapes"
        process = command.start("--storage", str(disk))
        wait_until(lambda: (folder / "step_00000010").exists() or process.poll() is not None)
        # Refused while a file is open for writing, which is for moments only.
        wait_until(lambda: not os.system(f"mount -o remount,ro {disk} 2>/dev/null"), 60)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 1, said
        last = said.strip().splitlines()[-1]
        assert "Read-only file system" in last and "it worked before" in last and "Traceback" not in said, said
        assert list(folder.glob("step_*")), "the last good checkpoint is there"
        code, said = command.run("--storage", str(disk))
        assert code == 2 and "Read-only file system" in said, "before the first step it is wrong input"
    finally:
        if process is not None:
            process.kill()
        os.system(f"umount -l {disk}")
