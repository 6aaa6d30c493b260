import copy
import errno
import subprocess
from pathlib import Path

import pyarrow.fs
import pytest

from objgan.errors import InputError
from pipelines.redaction import typed_again
from pipelines.storage.retry import StorageAway, is_full, is_passing, is_wrong_place
from pipelines.storage.storage import Storage


@pytest.fixture(params=["folder", "s3", "py"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A new storage of each kind: a folder, a bucket, and a file system that is neither."""
    if request.param == "folder":
        return Storage(tmp_path / "run")
    if request.param == "s3":
        return Storage(request.getfixturevalue("s3"))
    (tmp_path / "other").mkdir()
    return Storage(tmp_path / "other" / "run", filesystem=pyarrow.fs.PyFileSystem(_Moody()))


class _Moody(pyarrow.fs.FileSystemHandler):
    """The local file system, whose next `faults` calls raise."""

    def __init__(self, faults: int = 0, error: OSError | None = None) -> None:
        self.real, self.faults, self.calls = pyarrow.fs.LocalFileSystem(), faults, 0
        self.error = error or ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    def _mood(self) -> pyarrow.fs.FileSystem:
        self.calls += 1
        if self.faults:
            self.faults -= 1
            raise self.error
        return self.real

    def get_type_name(self) -> str:
        return "moody"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[pyarrow.fs.FileInfo]:
        return self._mood().get_file_info(paths)

    def get_file_info_selector(self, selector: pyarrow.fs.FileSelector) -> list[pyarrow.fs.FileInfo]:
        return self._mood().get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self._mood().create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self._mood().delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self._mood().delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError

    def delete_file(self, path: str) -> None:
        self._mood().delete_file(path)

    def move(self, src: str, dest: str) -> None:
        self._mood().move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        self._mood().copy_file(src, dest)

    def open_input_stream(self, path: str) -> pyarrow.NativeFile:
        return self._mood().open_input_stream(path)

    def open_input_file(self, path: str) -> pyarrow.NativeFile:
        return self._mood().open_input_file(path)

    def open_output_stream(self, path: str, metadata: object) -> pyarrow.NativeFile:
        return self._mood().open_output_stream(path)

    def open_append_stream(self, path: str, metadata: object) -> pyarrow.NativeFile:
        return self._mood().open_append_stream(path)


def test_files_are_written_read_listed_and_deleted(storage: Storage) -> None:
    storage.check()
    assert storage.names() == storage.names("nowhere") == []
    storage.write("a/state.json", '{"x": 1}')
    storage.write("a/state.json", '{"x": 2}')
    storage.write("a/b/c", b"\x00\xff")
    storage.write("d", b"")
    assert storage.json("a/state.json") == {"x": 2}
    assert storage.read("a/b/c") == b"\x00\xff"
    assert storage.names() == ["a", "d"]
    assert storage.names("a") == ["b", "state.json"]
    assert storage.exists("a") and storage.exists("a/b/c") and not storage.exists("a/c")
    assert storage.child("a").json("state.json") == {"x": 2}
    storage.rename("a/b/c", "a/b/e")
    assert storage.names("a/b") == ["e"]
    for _ in range(2):
        storage.delete("a")
        storage.delete("d")
    assert not storage.exists("a") and storage.names(hidden=True) == []


def test_what_is_absent_or_broken_is_told(storage: Storage) -> None:
    assert storage.json("nothing.json") is None
    with pytest.raises(FileNotFoundError):
        storage.read("nothing.json")
    with pytest.raises(FileNotFoundError):
        storage.download("nothing", Path("unused"))
    storage.write("half.json", '{"x": ')
    with pytest.raises(InputError, match=r"half\.json is not JSON"):
        storage.json("half.json")
    for name in ("/etc/passwd", "../other", "a/../../b"):
        with pytest.raises(ValueError, match="not a name within"):
            storage.write(name, b"")


def test_a_copy_opens_the_same_place(storage: Storage) -> None:
    storage.write("x", b"1")
    again = copy.copy(storage)
    assert again.read("x") == b"1"
    assert (again.path, again.uri, again.local) == (storage.path, storage.uri, storage.local)
    assert again.filesystem.get_file_info(f"{again.path}/x").size == 1


def test_folders_go_up_and_come_down_whole(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "networks").mkdir(parents=True)
    (source / "networks" / "big").write_bytes(bytes(range(256)) * 80_000)
    (source / "a_mark").write_text("whole")
    storage.upload(source, "f", last="a_mark")
    storage.upload(source, "f", last="a_mark")
    folder = storage.download("f", tmp_path / "fetched")
    assert (folder == tmp_path / "fetched") == (storage.local is None), "what is local is not copied"
    for name in ("networks/big", "a_mark"):
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    assert storage.names(hidden=True) == ["f"]
    with pytest.raises(ValueError, match="no file mark"):
        storage.upload(source, "f", last="mark")


def test_an_upload_that_is_stopped_has_no_mark(s3: str, tmp_path: Path) -> None:
    storage, source = Storage(s3), tmp_path / "source"
    source.mkdir()
    for name in ("a_mark", "b", "c"):
        (source / name).write_text(name)
    storage.upload(source, "f", last="a_mark")
    left = iter([None, None, None])
    with pytest.raises(StopIteration):
        storage.upload(source, "f", last="a_mark", ready=lambda: next(left))
    assert storage.names("f") == ["b", "c"]


def test_secrets_are_not_shown(s3: str) -> None:
    assert str(Storage(s3)).startswith("s3://bucket-")
    with pytest.raises(InputError) as caught:
        Storage("s3://id:hush@b/x?nonsense=1")
    assert "hush" not in str(caught.value) + str(Storage(s3)) + repr(Storage(s3))


@pytest.mark.parametrize(
    ("location", "again"),
    [
        ("runs/a b", "runs/a b"),
        ("/data/a?b", "/data/a?b"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("s3://id:hush@bucket/a?region=eu&scheme=http", "s3://bucket/a?region=eu&scheme=http"),
        ("s3://bucket/a?region=eu&secret_key=hush", "s3://bucket/a?region=eu"),
        ("s3://bucket/a?session_token=hush", "s3://bucket/a"),
        ("s3://bucket/a?X-Amz-Signature=hush&X-Amz-Credential=hush&sig=hush", "s3://bucket/a"),
        ("--storage=s3://id:hush@bucket/a?endpoint_override=h:1", "--storage=s3://bucket/a?endpoint_override=h:1"),
        ("abfs://c@account.dfs.core.windows.net/a", "abfs://account.dfs.core.windows.net/a"),
    ],
)
def test_a_location_to_type_again_has_its_query_and_no_secret(location: str, again: str) -> None:
    assert typed_again(location) == again


def test_a_storage_knows_the_folders_above_it(s3: str, tmp_path: Path) -> None:
    deep = Storage(s3).child("a").child("boxes")
    assert deep.above(2).uri == s3 and deep.above().uri == Storage(s3).child("a").uri
    assert "hush" not in deep.address and deep.address.endswith("/a/boxes?" + s3.partition("?")[2])
    assert Storage(tmp_path / "a" / "b").above().local == tmp_path / "a"


@pytest.mark.parametrize("location", ["zz://bucket/x", "s3://b/x?nonsense=1", "s3://", "hdfs://nowhere:1/x"])
def test_a_location_that_cannot_be_opened_is_one_line(location: str) -> None:
    with pytest.raises(InputError, match=r"storage \w+://.*(check|write it like)") as caught:
        Storage(location, patience=0).check()
    assert "\n" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_one_line_at_once(s3: str) -> None:
    with pytest.raises(InputError, match=r"cannot write .*NO_SUCH_BUCKET.*check the location") as caught:
        Storage(s3.replace("bucket-", "no-bucket-")).check()
    assert "\n" not in str(caught.value)


def test_a_folder_under_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="check the location"):
        Storage(tmp_path / "file" / "run").check()


def test_a_fault_that_passes_is_waited_out_and_told_once(tmp_path: Path, logs: list[str]) -> None:
    moody = _Moody()
    storage = Storage(tmp_path, filesystem=pyarrow.fs.PyFileSystem(moody))
    for error in (ConnectionResetError(104, "reset"), OSError(errno.ESTALE, "Stale"), OSError("AWS Error SLOW_DOWN")):
        moody.faults, moody.error = 2, error
        storage.write("x", b"1")
        moody.faults = 1
        assert storage.read("x") == b"1"
        moody.faults = 1
        assert storage.names() == ["x"]
        moody.faults = 1
        assert storage.exists("x")
        moody.faults = 1
        storage.delete("x")
    assert len(logs) == 2 * 5 * 3
    assert "cannot write x (reset): trying again for up to 120 s" in logs[0]
    assert "it went well after" in logs[1]


def test_storage_that_stays_away_is_given_up(tmp_path: Path) -> None:
    moody = _Moody(faults=10**9, error=OSError(errno.EIO, "Input/output error"))
    storage = Storage(tmp_path, filesystem=pyarrow.fs.PyFileSystem(moody), patience=0.4)
    with pytest.raises(StorageAway, match=r"cannot write x; given up after 0 s \(Input/output error\)"):
        storage.write("x", b"1")
    assert moody.calls > 1


def test_a_server_that_is_not_there_is_a_fault_that_passes() -> None:
    uri = "s3://id:key@bucket/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    with pytest.raises(StorageAway, match=r"given up after .*NETWORK_CONNECTION"):
        Storage(uri, patience=1).write("x", b"1")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError("AWS Error ACCESS_DENIED during PutObject"), "wrong"),
        (OSError("AWS Error UNKNOWN (HTTP status 403) during HeadObject"), "wrong"),
        (OSError("AWS Error UNKNOWN (HTTP status 503) during HeadObject"), "passing"),
        (OSError("google::cloud::Status(UNAVAILABLE: try later)"), "passing"),
        (TimeoutError("timed out"), "passing"),
        (OSError(errno.EROFS, "Read-only file system"), "wrong"),
        (OSError(errno.ENOSPC, "No space left on device"), "full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "full"),
        (FileNotFoundError(2, "No such file"), "neither"),
        (StorageAway("given up"), "neither"),
    ],
)
def test_faults_are_told_apart(error: OSError, kind: str) -> None:
    found = {"passing": is_passing(error), "wrong": is_wrong_place(error), "full": is_full(error)}
    assert [name for name, value in found.items() if value] == ([] if kind == "neither" else [kind])


def test_a_full_disk_keeps_its_errno_and_the_old_file(small_disk: Path) -> None:
    storage = Storage(small_disk / "run")
    storage.write("x", b"old")
    with pytest.raises(OSError, match="No space left") as caught:
        storage.write("x", b"1" * (4 << 20))
    assert caught.value.errno == errno.ENOSPC
    assert storage.read("x") == b"old"
    assert storage.names(hidden=True) == ["x"]


@pytest.fixture
def read_only(small_disk: Path) -> Path:
    done = subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"remounting is not permitted here: {done.stderr.strip()}")
    return small_disk


def test_a_read_only_place_is_the_persons_to_mend(read_only: Path) -> None:
    with pytest.raises(InputError, match="Read-only file system"):
        Storage(read_only).write("x", b"")
