"""`prepare` on broken inputs, on broken disks, and killed: the cases of tests.tools.chaos_data that are quick
enough.
"""

import subprocess

import pytest

from pipelines.data.prepare.convert import WORK
from pipelines.storage.file_lock import exclusive
from tests.tools.chaos_data import (
    FAULTS,
    Case,
    attempt,
    check_fault,
    content,
    ended,
    full_disk,
    kill_driver,
    kill_worker,
    read_only,
    run_process,
    wait_for,
    write_coco,
)

KILLED_IMAGES = 120


@pytest.fixture
def case(tmp_path) -> Case:
    write_coco(tmp_path / "coco")
    return Case(tmp_path / "coco", tmp_path / "out")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_reported_and_the_rest_is_kept(case, name) -> None:
    assert check_fault(name, case) == ""


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("check", [full_disk, read_only])
def test_disks_that_cannot_be_written(tmp_path, check) -> None:
    try:
        assert check(tmp_path) == ""
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("mounting is not allowed here")


def test_the_second_of_two_at_once_is_refused(case) -> None:
    with exclusive(case.out):
        code, text = attempt(case)
    assert code == 2 and "is in use by process" in text
    assert not (case.out / "manifest.json").exists()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_a_finished_folder_has_only_data(case) -> None:
    """Also after commands that do nothing or are refused; `content` has every file."""
    assert attempt(case)[0] == 0
    names, files = sorted(path.name for path in case.out.iterdir()), content(case.out)
    shards = [f"{split}-00000.arrow" for split in ("test", "train", "validation")]
    indices = [f"_index-{split}.arrow" for split in ("test", "train", "validation")]
    assert names == sorted([*shards, *indices, "domain", "README.md", "manifest.json", "rejected.jsonl"])
    assert attempt(case)[0] == 0
    case.options = ["--set", "data.min_count=2"]
    code, text = attempt(case)
    assert code == 2 and "was prepared differently" in text
    assert content(case.out) == files and sorted(path.name for path in case.out.iterdir()) == names


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A data set, and the bytes of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_coco(folder / "coco", KILLED_IMAGES)
    whole = Case(folder / "coco", folder / "whole")
    assert ended(run_process(whole, ray=False)) == 0
    return folder / "coco", content(whole.out)


@pytest.mark.parametrize("trace", ["*-00000.arrow", "domain/vectors.safetensors"])
def test_a_killed_driver_is_resumed_with_the_same_bytes(tmp_path, undisturbed, trace) -> None:
    """Killed after its first shard, and after its last, before the manifest."""
    coco, expected = undisturbed
    case = Case(coco, tmp_path / "out")
    process = run_process(case, ray=False)
    receipts = case.out / WORK / "receipts"
    wait_for(lambda: any(case.out.glob(trace)) and any(receipts.glob("[!.]*")), process)
    kill_driver(process)
    # A shard that was written a moment before the kill may lack its receipt, and is made again.
    noted = [path.name.removesuffix(".json") for path in receipts.glob("[!.]*")]
    kept = {name: (case.out / name).stat().st_ino for name in noted}
    assert kept and not (case.out / "manifest.json").exists()
    assert ended(run_process(case, ray=False)) == 0
    assert content(case.out) == expected
    assert all((case.out / name).stat().st_ino == inode for name, inode in kept.items())


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_worker_is_replaced(tmp_path, undisturbed) -> None:
    coco, expected = undisturbed
    case = Case(coco, tmp_path / "out")
    process = run_process(case)
    killed = kill_worker(process)
    assert ended(process) == 0
    assert content(case.out) == expected
    assert killed
