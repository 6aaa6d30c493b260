"""The model card: what it says, with text from elsewhere as text, and how it shares a description with `promote`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from objgan.generation import ObjGAN
from pipelines.models.card import END, MOST_DESCRIPTION, Measured, ModelCard, with_card, with_line, write_card
from pipelines.models.champion import Version, note_failure
from pipelines.models.registry import mlflow_at
from pipelines.tracking.tracker import prepare_store

MEASURED = Measured(
    "test", "ab" * 32, 7, {"boxes/label_f1_test": 0.51, "is_test": 1.5}, {"boxes/label_f1_test": 80, "is_test": 9},
    {"boxes/label_f1_test": [0.4, 0.6], "is_test": None},
)  # fmt: skip
SOURCES = {
    "data": "cd" * 32,
    "data_set": {"source": ["description: COCO", "licence: CC BY 2.0"], "rows": {"train": 90}, "counts": {"masks": 12}},
    "stages": {"boxes": {"step": 40}},
}


@pytest.fixture(scope="module")
def card(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    folder: Path = tmp_path_factory.mktemp("sources") / "model"
    ObjGAN.load(model_folder, "cpu").save(folder, SOURCES)
    return ModelCard.of("models:/objgan/3", folder, MEASURED)


def _section(text: str, title: str) -> list[str]:
    return text.partition(f"\n## {title}\n\n")[2].partition("\n\n## ")[0].splitlines()


def test_a_card_says_data_settings_measures_limits_licence_and_use(card: ModelCard) -> None:
    text = card.text()
    assert text.startswith("# models:/objgan/3\n\nObj-GAN: ") and text.endswith(END)
    assert _section(text, "Data") == [
        "- description: COCO",
        "- licence: CC BY 2.0",
        "- images: train 90",
        "- contents: masks 12",
        "- images that the layout statistics count: 40",
        "- 3 classes: kite, boat, stop sign",
        f"- digest: {'cd' * 32}",
    ]
    settings = _section(text, "Settings")
    assert "| recipe | tiny |" in settings and "| boxes: step of the checkpoint | 40 |" in settings
    assert f"| data.image_size | {card.config.data.image_size} |" in settings
    measures = _section(text, "Measures")
    assert measures[0] == f"Protocol test, seed 7, data {'ab' * 32}."
    assert measures[-2:] == [
        "| boxes/label\\_f1\\_test | 0.5100 | 0.4000 to 0.6000 | 80 |",
        "| is\\_test | 1.5000 |  | 9 |",
    ]
    words = card.config.data.max_words
    assert f"- It knows 12 words ({card.config.data.language}) and reads {words} of a caption." in text
    assert _section(text, "Licence")[0].startswith("Code: Apache-2.0.")
    use = _section(text, "Use")
    assert use[1:4] == [
        "import mlflow",
        "model = mlflow.pyfunc.load_model('models:/objgan/3')",
        "images = model.predict('a kite')",
    ]
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in text


def test_a_card_without_measures_and_sources_says_so(model_folder: Path) -> None:
    text = ModelCard.of("models:/objgan/1", model_folder, None).text()
    assert "Not measured yet" in text and "source and licence: not recorded" in text
    assert "- digest: not recorded" in text


HOSTILE = "<script>x</script>\n## Title\n| a | [link](javascript:x) `code` https://u:secret@host/x " + "z" * 5000


@pytest.mark.parametrize(
    "sources",
    [
        {"data": HOSTILE, "data_set": {"source": [HOSTILE] * 40, "rows": {HOSTILE: HOSTILE}, "counts": {HOSTILE: 1}}},
        {"data": [1], "data_set": [], "stages": "x"},
        {"data": None, "data_set": {"source": 3, "rows": [], "counts": None}, "stages": {"boxes": {"step": HOSTILE}}},
        [HOSTILE],
    ],
)
def test_text_from_elsewhere_stays_text_and_is_short(card: ModelCard, sources: Any) -> None:
    measured = replace(MEASURED, values={HOSTILE: 0.5}, counts={}, intervals={}, protocol=HOSTILE)
    hostile = replace(card, facts={"objgan": HOSTILE, "sources": sources}, measured=measured)
    text = hostile.text()
    plain = text.replace("\\<", "").replace("\\|", "")
    assert "<script" not in plain and "secret" not in text and "[link]" not in text
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# models:/objgan/3", "## Data", "## Settings", "## Measures", "## Limits", "## Licence", "## Use",
    ]  # fmt: skip
    rows = [line for line in plain.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {3, 5}, "a text is never another cell"
    assert len(text) < 30_000 and max(map(len, text.splitlines())) < 1500
    assert len(hostile.short()) <= 3500 and hostile.short().endswith(END)


def test_a_description_has_as_many_measures_as_fit(card: ModelCard) -> None:
    names = [f"from_captions/measure_number_{number}_test" for number in range(200)]
    many = replace(card, measured=replace(MEASURED, values=dict.fromkeys(names, 0.5), counts={}, intervals={}))
    short = many.short()
    assert len(short) <= 3500 and "175 more measures: `README.md` of the model." in short and "licence: CC BY" in short
    assert many.text().count("| from\\_captions/") == 200


def test_card_and_lines_share_a_description() -> None:
    first = with_line(with_card("my own note", f"# card 1\n\n{END}"), "line 1")
    assert first == f"# card 1\n\n{END}\n\nmy own note\n\nline 1"
    assert with_card(first, f"# card 2\n\n{END}") == f"# card 2\n\n{END}\n\nmy own note\n\nline 1"
    assert with_line("", "line 1") == "line 1"
    full = first
    for number in range(2, 50):
        full = with_line(full, f"line {number} " + "x" * 600)
    assert (
        len(full) <= MOST_DESCRIPTION and full.startswith("# card 1") and "line 49 " in full and "line 2 " not in full
    )


def test_a_version_keeps_the_line_of_promote_and_the_card_with_measures(
    model_folder: Path, card: ModelCard, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    prepare_store(store)
    with mlflow_at(store) as client:
        client.create_registered_model("objgan")
        client.create_model_version("objgan", str(tmp_path))

        def described() -> str:
            return str(client.get_model_version("objgan", "1").description)

        write_card(client, ModelCard.of("models:/objgan/1", model_folder))
        assert "Not measured yet" in described() and "# models:/objgan/1" in described()
        note_failure(client, Version("objgan", "1"), "1 of 4 rules do not hold")
        assert "Not measured yet" in described() and described().endswith("(failed: 1 of 4 rules do not hold)")
        write_card(client, ModelCard.of("models:/objgan/1", model_folder, MEASURED))
        measured = described()
        assert "0.4000 to 0.6000 | 80 |" in measured and "Not measured yet" not in measured
        assert measured.endswith("(failed: 1 of 4 rules do not hold)"), "the line of promote is kept"
        write_card(client, ModelCard.of("models:/objgan/1", model_folder))
        assert described() == measured


def test_measures_are_read_as_evaluate_writes_them(tmp_path: Path) -> None:
    record = {
        "protocol": "test", "data_digest": "ab", "seed": 1, "measures": {"a": 0.5}, "samples": {"a": 2},
        "intervals": {"a": [0.1, 0.9]}, "skipped": {},
    }  # fmt: skip
    assert Measured.of(json.loads(json.dumps(record))) == Measured(
        "test", "ab", 1, {"a": 0.5}, {"a": 2}, {"a": [0.1, 0.9]}
    )
