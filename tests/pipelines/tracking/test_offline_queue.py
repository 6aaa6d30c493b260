"""The offline queue, on real folders."""

import math
from pathlib import Path

from PIL import Image

from pipelines.storage.storage import Storage
from pipelines.tracking.offline_queue import (
    FOLDER,
    Dataset,
    Metrics,
    OfflineQueue,
    Parameters,
    Picture,
    Queued,
    Record,
    Status,
)


def records_of(queue: OfflineQueue) -> list[Record]:
    return [record for name in queue.names() for record in queue.read(name)]


def test_records_are_read_unchanged_and_in_order(tmp_path: Path) -> None:
    queue = OfflineQueue(Storage(tmp_path))
    first = [Parameters({"a.b": "1"}), Metrics({"loss": 0.1, "far": math.inf}, 10, 1234), Status("RUNNING", 5)]
    queue.add(first)
    second = [Metrics({"loss": 0.2}, 20, 1235), Dataset("ab", "s3://bucket/data", {"train": 3})]
    queue.add(second)
    assert records_of(OfflineQueue(Storage(tmp_path))) == [*first, *second]
    assert queue.summary().others == 3


def test_the_next_process_adds_after_existing_records(tmp_path: Path) -> None:
    for step in range(12):
        OfflineQueue(Storage(tmp_path)).add([Metrics({"loss": 0.0}, step, 0)])
    assert [r.step for r in records_of(OfflineQueue(Storage(tmp_path))) if isinstance(r, Metrics)] == list(range(12))


def test_two_processes_of_a_run_do_not_overwrite_each_other(tmp_path: Path) -> None:
    worker, driver = OfflineQueue(Storage(tmp_path)), OfflineQueue(Storage(tmp_path))
    worker.add([Metrics({"loss": 0.0}, 1, 0)])
    driver.add([Status("FAILED", 1)])
    assert len(records_of(worker)) == 2


def test_pictures_are_files_that_are_removed_with_their_records(tmp_path: Path) -> None:
    queue = OfflineQueue(Storage(tmp_path))
    name = queue.add([Picture("boxes", 7, Image.new("RGB", (4, 3), "red")), Metrics({"loss": 0.0}, 7, 0)])
    (file,) = (tmp_path / FOLDER).glob("*.png")
    assert Image.open(file).size == (4, 3)
    picture, _ = queue.read(name)
    assert isinstance(picture, Picture) and picture.png() == file.read_bytes()
    queue.remove(name)
    assert not (tmp_path / FOLDER).exists()


def test_a_missing_picture_does_not_lose_the_metrics(tmp_path: Path) -> None:
    queue = OfflineQueue(Storage(tmp_path))
    name = queue.add([Picture("boxes", 7, Image.new("RGB", (4, 3))), Metrics({"loss": 0.0}, 7, 0)])
    next((tmp_path / FOLDER).glob("*.png")).unlink()
    assert queue.read(name) == [Metrics({"loss": 0.0}, 7, 0)]


def test_a_removed_file_is_empty_and_a_broken_file_is_renamed(tmp_path: Path) -> None:
    queue = OfflineQueue(Storage(tmp_path))
    gone, broken = (queue.add([Metrics({"loss": 0.0}, step, 0)]) for step in (1, 2))
    (tmp_path / FOLDER / gone).unlink()
    (tmp_path / FOLDER / broken).write_text("{")
    assert queue.read(gone) == [] == queue.read(broken)
    assert queue.names() == []
    assert (tmp_path / FOLDER / f"{broken}.broken").read_text() == "{"


def test_the_summary_counts_a_repeated_step_once(tmp_path: Path) -> None:
    queue = OfflineQueue(Storage(tmp_path))
    assert not queue.summary()
    for _ in range(2):
        queue.add([Metrics({"a": 0.0, "b": 0.0}, 1, 0), Picture("boxes", 7, Image.new("RGB", (4, 3)))])
    queued = queue.summary()
    assert (queued.metrics, queued.pictures, queued.others) == (2, 1, 0)
    assert queued.folder == f"{tmp_path}/{FOLDER}"


def test_the_line_for_the_user() -> None:
    assert Queued(3, 1, 0, f"runs/a/boxes/{FOLDER}", "runs/a/boxes").text() == (
        "MLflow was not reachable: 3 metrics and 1 picture are queued in runs/a/boxes/mlflow_backlog; the next command "
        "of this run uploads the queue, or run `python -m pipelines runs send runs/a/boxes`"
    )
    assert "1 record (settings, status) is queued" in Queued(0, 0, 1, FOLDER, ".").text()
