import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from objgan.errors import InputError
from objgan.vocabulary import tokenize
from pipelines.models.generate import (
    GenerateJob,
    asked_and_kept,
    contact_sheet,
    generate,
    local_model,
    read_captions,
    sample_names,
    steps,
)


@pytest.fixture
def job(model_folder: Path, tmp_path: Path) -> GenerateJob:
    return GenerateJob(str(model_folder), ("two red kites above a boat",), tmp_path / "out", tracking_uri="")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_sample_gets_an_image_a_layout_and_its_steps(job: GenerateJob) -> None:
    captions = ("two red kites above a boat", "A kite, on the sea!")
    files = generate(replace(job, captions=captions, n=2))
    names = [
        "two-red-kites-above-a-boat_0",
        "two-red-kites-above-a-boat_1",
        "a-kite-on-the-sea_0",
        "a-kite-on-the-sea_1",
    ]
    assert [path.name for path in files[:4]] == [f"{name}.png" for name in names]
    assert files[-1].name == "contact_sheet.png"
    expected = {f"{name}{end}" for name in names for end in (".png", ".json", "_steps.png")} | {"contact_sheet.png"}
    assert set(contents(job.out)) == expected == {path.name for path in files}
    with Image.open(files[0]) as image:
        assert image.size == (64, 64)
    with Image.open(job.out / f"{names[0]}_steps.png") as image:
        assert image.width > 3 * 256
    layout = json.loads((job.out / f"{names[2]}.json").read_text())
    assert layout["caption"] == "A kite, on the sea!"


def test_one_sample_needs_no_contact_sheet(job: GenerateJob) -> None:
    assert len(generate(job)) == 3
    assert not (job.out / "contact_sheet.png").exists()


def test_what_a_judge_sees_is_in_the_sheet_and_the_log(job: GenerateJob, tmp_path: Path, logs: list[str]) -> None:
    generate(replace(job, n=2))
    generate(replace(job, n=2, out=tmp_path / "judged"), lambda model: lambda one: f"{one.index} x red kite; sea")
    lines = [line for line in logs if "the judge sees" in line]
    assert [line.rpartition("sees ")[2] for line in lines] == ["0 x red kite; sea", "1 x red kite; sea"]
    plain, judged = contents(job.out), contents(tmp_path / "judged")
    assert [name for name in plain if plain[name] != judged[name]] == ["contact_sheet.png"]


def test_the_same_job_writes_the_same_bytes(job: GenerateJob, tmp_path: Path) -> None:
    generate(replace(job, n=2))
    generate(replace(job, n=2, out=tmp_path / "again"))
    assert contents(job.out) == contents(tmp_path / "again")
    generate(replace(job, n=2, seed=1, out=tmp_path / "other"))
    assert contents(job.out) != contents(tmp_path / "other")


def test_the_layout_it_wrote_can_be_given_back_and_edited(job: GenerateJob, tmp_path: Path) -> None:
    first = generate(job)
    back = generate(replace(job, captions=(), layout=first[1], out=tmp_path / "back"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in back]
    three = generate(replace(job, n=3, seed=7, out=tmp_path / "three"))
    for number, image in enumerate(three[:3]):
        back = generate(replace(job, captions=(), layout=image.with_suffix(".json"), out=tmp_path / "back"))
        steps = image.with_name(f"{image.stem}_steps.png")
        own = [path.read_bytes() for path in (image, image.with_suffix(".json"), steps)]
        assert own == [path.read_bytes() for path in back], f"sample {number}"
    edited = {"caption": "a boat", "objects": [{"label": "boat", "box": [0.1, 0.4, 0.8, 0.5]}]}
    (tmp_path / "edited.json").write_text(json.dumps(edited))
    made = generate(replace(job, captions=(), layout=tmp_path / "edited.json", out=tmp_path / "edited"))
    written = json.loads(made[1].read_text())
    assert [(o["label"], o["box"]) for o in written["objects"]] == [("boat", [0.1, 0.4, 0.8, 0.5])]
    assert written["objects"][0]["mask"]["size"] == [64, 64]


WRONG = {
    "no model": ({"model": "nowhere"}, "unknown model nowhere"),
    "no alias": ({"model": "models:/objgan@nobody"}, "unknown model models:/objgan@nobody"),
    "no run": ({"model": "runs:/0123/model"}, "unknown model runs:/0123/model"),
    "no caption": ({"captions": ()}, "give a caption"),
    "empty caption": ({"captions": ("a kite", " ")}, "caption ' ' has no words"),
    "unknown words": ({"captions": ("zebra crossing",)}, "'zebra crossing'"),
    "no sample": ({"n": 0}, "n must be at least 1"),
    "no layout": ({"layout": Path("nowhere.json")}, "no file nowhere.json"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused_in_one_line(job: GenerateJob, store: str, name: str) -> None:
    change, message = WRONG[name]
    wrong = replace(job, **{"tracking_uri": store, **change})  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        generate(wrong)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not job.out.exists()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}")
    with pytest.raises(InputError, match="no model folders"), local_model(str(tmp_path), ""):
        pass


def test_captions_come_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_bytes("\ufeffa kite\r\n\n  two kites \n".encode())
    assert read_captions(path) == ["a kite", "two kites"]
    for content, message in ((b"\n \n", "is empty"), (b"\xff\xfe\x00", "not UTF-8")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_captions(path)
    with pytest.raises(InputError, match="no file"):
        read_captions(tmp_path / "none.txt")


def test_names_are_safe_and_given_once(model_folder: Path) -> None:
    import objgan

    captions = ["a kite", "A  kite.", "../a/kite" + " on the sea" * 20, "über a kite 凧"]
    made = objgan.load(model_folder, "cpu").generate(captions)
    names = sample_names(made)
    assert names[:2] == ["a-kite_0", "a-kite_1"] and names[3] == "uber-a-kite_0"
    assert len(set(names)) == 4 and all(len(name) < 60 and "/" not in name for name in names)


def test_pictures_show_every_sample(model_folder: Path) -> None:
    import objgan

    made = objgan.load(model_folder, "cpu").generate(["a red kite on the sea"], n=8)
    two, eight = contact_sheet(made[:2]), contact_sheet(made)
    assert eight.width > 1.9 * two.width and eight.height > 1.9 * two.height
    shown = np.asarray(steps(made[0]))
    image = np.kron(made[0].image, np.ones((4, 4, 1), np.uint8))
    assert (shown[-264:-8, -264:-8] == image).all()


def test_the_contact_sheet_says_which_stated_facts_the_layout_keeps(model_folder: Path) -> None:
    import objgan
    from objgan.generation import StatedFact

    (one,) = objgan.load(model_folder, "cpu").generate(["a  red kite\non the sea"])
    kept, broken, more = (StatedFact("2 kites", True), StatedFact("kite above boat", False), StatedFact("1 boat", True))
    assert list(asked_and_kept(replace(one, facts=()))) == ["a red kite on the sea"]
    both = replace(one, facts=(kept, broken, more))
    lines = ["a red kite on the sea", "layout keeps: 2 kites, 1 boat", "layout breaks: kite above boat"]
    assert list(asked_and_kept(both)) == lines
    plain, first, sheet = (contact_sheet([replace(one, facts=facts)]) for facts in ((), (kept,), both.facts))
    line = first.height - plain.height
    assert line > 10 and sheet.height == plain.height + 2 * line
    assert (np.asarray(plain)[-180:] == np.asarray(sheet)[-180:]).all()


def test_unknown_and_cut_words_are_reported_and_written(job: GenerateJob, tmp_path: Path, logs: list[str]) -> None:
    caption = "two red ｋｉｔｅｓ above a zebra, a zeppelin and a zebra on the sea " + "the sea " * 20
    files = generate(replace(job, captions=(caption, "a kite"), n=2))
    (unknown,) = [line for line in logs if "vocabulary" in line]
    assert unknown.endswith("not in the model's vocabulary: zebra, zeppelin, and")
    (cut,) = [line for line in logs if "cut after" in line]
    written = json.loads(files[4].read_text())
    most = len(tokenize(caption)) - len(written["cut_words"])
    assert f"cut after {most} words, without: the, sea, the" in cut and "more" in cut
    assert written["unknown_words"] == ["zebra", "zeppelin", "and"]
    assert written["cut_words"] == tokenize(caption)[most:]
    plain = json.loads(files[8].read_text())
    assert (plain["caption"], plain["unknown_words"], plain["cut_words"]) == ("a kite", [], [])
    back = generate(replace(job, captions=(), layout=files[4], out=tmp_path / "back"))
    assert json.loads(back[1].read_text()) == written


def test_a_caption_whose_known_words_are_all_cut_is_refused(job: GenerateJob) -> None:
    with pytest.raises(InputError, match="none of its first"):
        generate(replace(job, captions=("zebra " * 30 + "kite",)))


@pytest.mark.parametrize(
    ("caption", "broken"),
    [
        ("40 boats on the sea", "40 x boat"),
        ("a boat left of itself", "boat left of boat"),
        ("three boats and no boat", "no boat"),
        # One of the two, by the weights.
        ("a boat left of a kite and the boat right of the kite", "boat (left|right) of kite"),
    ],
)
def test_what_cannot_hold_is_drawn_as_far_as_possible_and_reported(
    job: GenerateJob, caption: str, broken: str, logs: list[str]
) -> None:
    files = generate(replace(job, captions=(caption,)))
    (line,) = [line for line in logs if "does not keep" in line]
    start = f"caption {caption!r}, sample 0: the layout does not keep: "
    assert line.startswith(start) and re.search(broken, line.removeprefix(start))
    layout = json.loads(files[1].read_text())
    (fact,) = [fact["fact"] for fact in layout["facts"] if not fact["kept"]]
    assert re.fullmatch(broken, fact) and line == start + fact
    assert len(layout["objects"]) >= 1
