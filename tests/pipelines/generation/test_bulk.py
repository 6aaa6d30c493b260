"""Many captions to shards: what is in them, that they resume, and that every row of the input is accounted for."""

import base64
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import objgan
from objgan.errors import InputError
from objgan.generation import ObjGAN
from objgan.serving import OUTPUTS, Params, answer
from pipelines.__main__ import main
from pipelines.generation import bulk
from pipelines.generation.bulk import BulkJob, Opened, generate_shards, open_bulk, run_here
from pipelines.generation.captions import Part
from pipelines.generation.shards import ShardReport
from pipelines.storage.storage import Storage
from tests.tools.logged import logged

GOOD = [
    "a red kite",
    "two boats on the sea",
    "a stop sign above the boat",
    "two kites",
    "a kite",
    "the sea",
    "red boat",
]
WRONG: list[tuple[Any, str]] = [
    (None, "caption is missing"),
    ("x" * 100_000, "longer than"),
    ("", "no words"),
    ("zebra", "none of its words"),
    ("\0", "no words"),
    (["a kite"], "must be a text"),
    (7, "must be a text"),
]


def write(path: Path, rows: Sequence[dict[str, Any] | str]) -> Path:
    """Lines of JSON; a text is a line as it is."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture
def job(model_folder: Path, tmp_path: Path) -> BulkJob:
    """7 captions in 4 shards."""
    rows = [{"caption": text, "id": f"id {number}"} for number, text in enumerate(GOOD)]
    captions = write(tmp_path / "captions.jsonl", rows)
    columns = dict.fromkeys(("caption", "layout", "id"))
    return BulkJob(model_folder, captions, tmp_path / "out", columns, shard_rows=2, device="cpu")


def run(job: BulkJob, runner: bulk.Runner = run_here) -> dict[str, Any]:
    return generate_shards(open_bulk(job), runner)


def stopping(after: int) -> bulk.Runner:
    """Makes some shards, and fails."""

    def runner(opened: Opened, parts: Sequence[Part]) -> Iterator[ShardReport]:
        yield from run_here(opened, parts[:after])
        raise KeyboardInterrupt

    return runner


def never(opened: Opened, parts: Sequence[Part]) -> Iterator[ShardReport]:
    raise AssertionError("nothing is to be made")


def shards(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "pictures").iterdir())}


def rows_of(out: Path) -> list[dict[str, Any]]:
    """All rows, as other programs read the folder."""
    return pq.read_table(out / "pictures").to_pylist()


def rejected(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]


def test_shards_hold_what_the_registered_model_answers(job: BulkJob, model_folder: Path) -> None:
    manifest = run(replace(job, n=2, seed=5))
    captions = [{"caption": text, "id": f"id {number}"} for number, text in enumerate(GOOD)]
    expected = list(answer(objgan.load(model_folder, "cpu"), captions, Params(n=2, seed=5)))
    found = rows_of(Path(job.out))
    assert [{**row, "image_png": base64.b64encode(row["image_png"]).decode()} for row in found] == expected
    assert list(found[0]) == list(OUTPUTS)
    with Image.open(io.BytesIO(found[0]["image_png"])) as image:
        assert image.size == (64, 64)
    assert (manifest["rows"], manifest["pictures"], manifest["rejected"]) == (7, 14, 0)
    assert [(shard["name"], shard["first"], shard["rows"]) for shard in manifest["shards"]] == [
        (f"pictures/part-{number:06d}.parquet", 2 * number, min(2, 7 - 2 * number)) for number in range(4)
    ]
    assert rejected(Path(job.out)) == []


def test_the_same_bytes_in_any_order(job: BulkJob, tmp_path: Path) -> None:
    run(job)
    run(replace(job, out=tmp_path / "other"), lambda opened, parts: run_here(opened, parts[::-1]))
    assert shards(tmp_path / "out") == shards(tmp_path / "other") and len(shards(tmp_path / "out")) == 4
    for name in ("manifest.json", "rejected.jsonl", "settings.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_finished_shards_are_never_made_again(job: BulkJob, tmp_path: Path) -> None:
    run(replace(job, out=tmp_path / "whole"))
    out, made = tmp_path / "out", []
    with pytest.raises(KeyboardInterrupt):
        run(job, stopping(2))
    before = {path: path.stat().st_mtime_ns for path in (out / "pictures").iterdir()}
    assert len(before) == 2 and not (out / "manifest.json").exists()

    def rest(opened: Opened, parts: Sequence[Part]) -> Iterator[ShardReport]:
        made.extend(part.number for part in parts)
        return run_here(opened, parts)

    run(job, rest)
    assert made == [2, 3]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert shards(out) == shards(tmp_path / "whole")
    run(job, never)
    assert (out / "manifest.json").read_bytes() == (tmp_path / "whole" / "manifest.json").read_bytes()


def test_a_shard_that_another_worker_finished_meanwhile_is_left_alone(job: BulkJob, tmp_path: Path) -> None:
    opened = open_bulk(job)
    first = list(run_here(opened, opened.plan.parts[:1]))
    file = tmp_path / "out" / "pictures" / "part-000000.parquet"
    before = file.stat().st_mtime_ns
    assert list(run_here(opened, opened.plan.parts[:1])) == first and file.stat().st_mtime_ns == before


def test_a_shard_that_was_cut_short_is_made_again(job: BulkJob, tmp_path: Path) -> None:
    run(job)
    whole = shards(tmp_path / "out")
    file = tmp_path / "out" / "pictures" / "part-000002.parquet"
    file.write_bytes(file.read_bytes()[:-30])
    run(job)
    assert shards(tmp_path / "out") == whole


_KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.generation.bulk import BulkJob, generate_shards, open_bulk, run_here
model, captions, out = map(Path, sys.argv[1:])
columns = dict.fromkeys(("caption", "layout", "id"))
replace = os.replace
def kill(source, target):
    if str(target).endswith("part-000001.parquet"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = kill
job = BulkJob(model, captions, out, columns, shard_rows=2, device="cpu")
generate_shards(open_bulk(job), run_here)
"""


def test_a_kill_between_write_and_rename_leaves_nothing_half_and_nothing_is_lost(
    job: BulkJob, tmp_path: Path, repository: Path
) -> None:
    words = [sys.executable, "-c", _KILLED, str(job.model), str(job.captions), str(job.out)]
    assert subprocess.run(words, cwd=repository, capture_output=True).returncode == -signal.SIGKILL
    folder = tmp_path / "out" / "pictures"
    hidden = [path for path in folder.iterdir() if path.name.startswith(".")]
    assert len(hidden) == 1 and hidden[0].stat().st_size > 1000, "the second shard was written, and not renamed"
    assert [row["row"] for row in rows_of(tmp_path / "out")] == [0, 1], "readers do not see it"
    run(job)
    run(replace(job, out=tmp_path / "whole"))
    assert shards(tmp_path / "out") == shards(tmp_path / "whole")


def test_every_row_is_in_the_output_and_wrong_ones_are_listed_with_the_reason(job: BulkJob, tmp_path: Path) -> None:
    layouts = [{"layout": "{", "reason": "layout"}, {"layout": 7, "reason": "layout must be a text"}]
    rows: list[dict[str, Any] | str] = [{"caption": "a kite", "id": 1}]
    rows += [{"caption": caption} for caption, _ in WRONG]
    rows += ['{"caption": "a ki', "[]", '{"caption": "a \\ud800 kite"}']
    rows += [{"caption": "a kite", "layout": one["layout"], "id": "x"} for one in layouts]
    rows += [{"caption": "a kite", "id": [1]}, {"caption": "a boat", "id": "é"}]
    reasons = [reason for _, reason in WRONG] + ["is not JSON", "no JSON object", "surrogate"]
    reasons += [one["reason"] for one in layouts] + ["id must be"]
    opened = open_bulk(replace(job, captions=write(tmp_path / "wrong.jsonl", rows), n=3))
    with logged() as lines:
        manifest = generate_shards(opened, run_here)
    found = rows_of(tmp_path / "out")
    assert {row["row"] for row in found} == set(range(len(rows)))
    assert [row["row"] for row in found if row["error"] is None] == [
        0,
        0,
        0,
        len(rows) - 1,
        len(rows) - 1,
        len(rows) - 1,
    ]
    assert [row["id"] for row in found if row["error"] is None][::3] == ["1", "é"]
    listed = rejected(tmp_path / "out")
    assert [(one["row"], one["file"]) for one in listed] == [(row, "wrong.jsonl") for row in range(1, len(rows) - 1)]
    for one, reason in zip(listed, reasons, strict=True):
        assert reason in one["error"], (one, reason)
    assert manifest["pictures"] == 6 and manifest["rejected"] == len(rows) - 2
    assert any(
        f"{len(rows) - 2} of {len(rows)} captions rejected" in line and "row 1: caption is missing" in line
        for line in lines
    )


def test_layouts_of_the_input_are_drawn_and_give_the_same_bytes_back(job: BulkJob, tmp_path: Path) -> None:
    run(replace(job, n=2, seed=3))
    first = rows_of(tmp_path / "out")
    captions = write(tmp_path / "again.jsonl", [{"caption": row["caption"], "layout": row["layout"]} for row in first])
    run(replace(job, captions=captions, out=tmp_path / "again"))
    again = rows_of(tmp_path / "again")
    for name in ("sample", "seed", "caption", "image_png", "layout"):
        assert [row[name] for row in again] == [row[name] for row in first], name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 2}, r"\(n: 1 -> 2\)"),
        ({"seed": 1}, r"\(seed: None -> 1\)"),
        ({"shard_rows": 3}, r"\(shard_rows: 2 -> 3\)"),
        ({"device": "cuda"}, r"\(device: cpu -> cuda\)"),
        ({"columns": {"caption": None, "layout": None, "id": "caption"}}, "columns: "),
        ({"captions": "other.jsonl"}, r"\(other captions\)"),
        ({"model": "other"}, r"\(other model\)"),
    ],
)
def test_a_resumed_run_with_other_settings_is_refused_in_a_line_that_names_them(
    job: BulkJob, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(job, stopping(1))
    write(tmp_path / "other.jsonl", [{"caption": text} for text in GOOD[::-1]])
    model = ObjGAN.load(job.model, "cpu")
    with torch.no_grad():
        next(model.networks["image_generator"].parameters()).add_(1)
    model.save(tmp_path / "other")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    change = {name: tmp_path / value if str(value).startswith("other") else value for name, value in change.items()}
    with pytest.raises(InputError, match=words) as caught:
        run(replace(job, **change), never)
    assert "was begun differently" in str(caught.value) and "give another --out" in str(caught.value)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    run(replace(job, device="auto"))


def test_of_two_first_commands_the_second_compares_its_settings_when_its_turn_comes(job: BulkJob) -> None:
    second = open_bulk(replace(job, seed=9))
    run(job)
    with pytest.raises(InputError, match="seed: None -> 9"):
        generate_shards(second, never)


def test_shards_of_which_nobody_knows_the_settings_are_left_alone(job: BulkJob, tmp_path: Path) -> None:
    run(job)
    (tmp_path / "out" / "settings.json").unlink()
    before = shards(tmp_path / "out")
    with pytest.raises(InputError, match="holds files"):
        run(replace(job, n=2), never)
    assert shards(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 65}, "param n must be"),
        ({"n": 0}, "param n must be"),
        ({"seed": 2**70}, "param seed"),
        ({"model": Path("none")}, "model"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    job: BulkJob, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        run(replace(job, **change), never)
    assert not (tmp_path / "out").exists()


def test_an_error_of_the_model_names_the_row(job: BulkJob, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ObjGAN.generate

    def fail(self: ObjGAN, captions: Sequence[str], **more: Any) -> Any:
        if captions[0] == "two kites":
            raise RuntimeError("out of memory")
        return made(self, captions, **more)

    monkeypatch.setattr(ObjGAN, "generate", fail)
    with pytest.raises(RuntimeError, match=r"row 3 of the captions, in captions.jsonl: out of memory"):
        run(job)
    monkeypatch.undo()
    assert run(job)["pictures"] == 7


def test_in_a_bucket_the_same_bytes_appear_and_a_stopped_run_resumes(job: BulkJob, tmp_path: Path, s3: str) -> None:
    run(job)
    Storage(s3).send(Path(str(job.captions)), "captions.jsonl")
    place, mark, query = s3.partition("?")
    there = replace(job, captions=f"{place}/captions.jsonl{mark}{query}", out=f"{place}/out{mark}{query}")
    with pytest.raises(KeyboardInterrupt):
        run(there, stopping(1))
    run(there)
    out = Storage(there.out)
    assert {name: out.read(f"pictures/{name}") for name in out.names("pictures")} == shards(tmp_path / "out")
    assert out.read("manifest.json") == (tmp_path / "out" / "manifest.json").read_bytes()
    assert "hush" not in out.read("settings.json").decode()


def test_progress_names_captions_rate_and_time_left(job: BulkJob, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.data.shards import progress

    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_LEAST_SECONDS", 1e-9)
    with pytest.raises(KeyboardInterrupt):
        run(job, stopping(1))
    with logged() as lines:
        generate_shards(open_bulk(job), run_here)
    assert any(line.startswith("generate: 3/4 shards, 6/7 captions, 2 of them already done,") for line in lines), lines
    assert any("captions/s" in line and line.endswith("left") for line in lines), lines


Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """refused(*words) -> the one line of a command that ends with exit code 2 and leaves everything as it was."""
    monkeypatch.chdir(tmp_path)

    def command(*words: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert main(["generate", *map(str, words)]) == 2
        text = capsys.readouterr().err.strip()
        assert text.startswith("error: ") and len(text.splitlines()) == 1, text
        assert sorted(tmp_path.rglob("*")) == before
        return text

    return command


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--captions", "c.jsonl", "--layout", "x.json"], "--captions and --layout exclude each other"),
        (["a kite", "--captions", "c.jsonl"], "--captions and CAPTION exclude each other"),
        (["--captions", "c.jsonl", "--judges", "x"], "--judges is for files"),
        (["a kite", "--workers", "2"], "--workers is for"),
        (["a kite", "--dry-run"], "--dry-run is for"),
        (["a kite", "--id-column", "x"], "--id-column is for"),
        (["a kite", "--format", "parquet"], "needs --captions"),
        (["a kite", "--out", "s3://id:hush@bucket/x"], "need a path"),
        (["--captions", "s3://bucket/c.txt", "--format", "png"], "no URI"),
        (["--captions", "none.csv"], "no file"),
        (["--captions", "c.jsonl", "--n", "65"], "param n"),
        (["--captions", "c.jsonl", "--caption-column", "capt"], "did you mean caption"),
        (["--captions", "c.jsonl", "--workers", "999", "--device", "cpu", "--dry-run"], "999"),
        (["--captions", "c.jsonl", "--out", "c.jsonl", "--dry-run"], "c.jsonl"),
    ],
)
def test_the_command_refuses(
    refused: Refused, tmp_path: Path, model_folder: Path, words: list[str], expected: str
) -> None:
    write(tmp_path / "c.jsonl", [{"caption": "a kite"}])
    line = refused("--model", model_folder, *words)
    assert expected in line and "hush" not in line


def test_a_dry_run_says_what_is_to_be_made_and_writes_nothing(
    job: BulkJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "--captions", str(job.captions), "--out", str(job.out), "--model", str(job.model)]
    words += ["--shard-rows", "2", "--dry-run"]
    assert main(words) == 0 and not (tmp_path / "out").exists()
    said = capsys.readouterr().out
    assert "7 captions, 1 pictures each, in 4 shards" in said and "would make 4 shards" in said
    with pytest.raises(KeyboardInterrupt):
        run(job, stopping(1))
    before = sorted((tmp_path / "out").rglob("*"))
    assert main(words) == 0 and sorted((tmp_path / "out").rglob("*")) == before
    assert "would make 3 shards" in capsys.readouterr().out


def test_a_finished_folder_needs_no_ray(job: BulkJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(job)
    words = ["generate", "--captions", str(job.captions), "--out", str(job.out), "--model", str(job.model)]
    assert main([*words, "--shard-rows", "2", "--address", "ray://127.0.0.1:1"]) == 0
    assert "7 pictures of 7 captions" in capsys.readouterr().out
    assert not (tmp_path / "out" / "status.json").exists()


def test_an_unfinished_folder_keeps_its_status_and_belongs_to_its_run(
    job: BulkJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(job, stopping(1))
    words = ["generate", "--captions", str(job.captions), "--out", str(job.out), "--model", str(job.model)]

    def interrupted(address: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.cli.generate.ray_session", interrupted)
    assert main([*words, "--shard-rows", "2"]) == 130
    status = tmp_path / "out" / "status.json"
    before = status.read_text()
    assert json.loads(before)["state"] == "stopped"
    monkeypatch.setenv("OBJGAN_RUNS", "new")
    assert main([*words, "--shard-rows", "2"]) == 2 and "submit with --resume" in capsys.readouterr().err
    assert status.read_text() == before, "a job that may not continue the run leaves it alone"


def test_a_text_file_still_becomes_files_of_pictures(
    job: BulkJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "captions.txt").write_text("a kite\ntwo kites\n")
    words = ["generate", "--captions", str(tmp_path / "captions.txt"), "--format", "png", "--out", str(job.out)]
    assert main([*words, "--model", str(job.model)]) == 0
    assert "nothing is left to do" not in capsys.readouterr().err, "only shards are resumed"
    assert {"a-kite_0.png", "two-kites_0.png"} <= {path.name for path in Path(job.out).iterdir()}


@pytest.mark.ray
def test_terminated_killed_and_resumed_on_ray_nothing_is_lost_or_doubled(
    job: BulkJob, tmp_path: Path, repository: Path
) -> None:
    """Two workers, which SIGTERM ends; two, killed with their driver; then one. The same bytes as without Ray."""
    rows = [{"caption": GOOD[number % len(GOOD)], "id": number} for number in range(96)]
    captions, out = write(tmp_path / "captions.jsonl", rows), tmp_path / "out"
    words = [sys.executable, "-m", "pipelines", "generate", "--captions", str(captions), "--out", str(out)]
    words += ["--model", str(job.model), "--shard-rows", "4", "--n", "2", "--device", "cpu", "--workers"]

    def finished() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.glob("pictures/part-*")}

    before: dict[Path, int] = {}
    for sent, code, said in ((signal.SIGTERM, 143, "the same command resumes"), (signal.SIGKILL, -9, "")):
        driver = subprocess.Popen([*words, "2"], cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 300
        while len(finished()) < len(before) + 3:
            assert driver.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        driver.send_signal(sent)
        text = driver.communicate()[0].decode()
        assert driver.returncode == code and said in text, text
        assert before.items() <= finished().items(), "finished shards are never made again"
        before = finished()
        assert len(before) < 24, "it was stopped in the middle"
    again = subprocess.run([*words, "1"], cwd=repository, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "already done" in again.stdout and "96/96 captions" in again.stdout, again.stdout
    assert before.items() <= finished().items()
    run(replace(job, captions=captions, out=tmp_path / "here", shard_rows=4, n=2))
    assert shards(out) == shards(tmp_path / "here")
    assert (out / "manifest.json").read_bytes() == (tmp_path / "here" / "manifest.json").read_bytes()
    assert [(row["row"], row["sample"]) for row in rows_of(out)] == [(row, n) for row in range(96) for n in range(2)]
