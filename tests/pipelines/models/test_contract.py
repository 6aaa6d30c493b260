"""The registered model as MLflow loads it: what it takes, what it gives, over REST, and two versions in one process."""

import base64
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, scoring_server
from PIL import Image

import objgan
from pipelines.models.registry import pyfunc_parts, register

CAPTIONS = ["a red kite", "two boats on the sea"]


@pytest.fixture(scope="module")
def saved(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of an MLflow model."""
    folder, path = tmp_path_factory.mktemp("saved") / "model", sys.path
    mlflow.pyfunc.save_model(folder, **pyfunc_parts(model_folder))
    yield folder
    sys.path = path


@pytest.fixture(scope="module")
def model(saved: Path) -> PyFuncModel:
    """Loaded from `saved`: another test may have loaded the same code from a folder that is gone."""
    for name in [name for name in sys.modules if name.startswith("objgan_")]:
        del sys.modules[name]
    return mlflow.pyfunc.load_model(str(saved))


@pytest.fixture(scope="module")
def expected(model_folder: Path) -> list[np.ndarray]:
    return [one.image for one in objgan.load(model_folder, "cpu").generate(CAPTIONS)]


@pytest.fixture(scope="module")
def post(model: PyFuncModel) -> Iterator[Callable[[Any], tuple[int, dict[str, Any]]]]:
    """post(payload) -> status and answer of MLflow's scoring server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")  # which the server sets, and nobody takes back
        client = TestClient(scoring_server.init(model))

        def send(payload: Any) -> tuple[int, dict[str, Any]]:
            text = payload if isinstance(payload, str) else json.dumps(payload)
            answer = client.post("/invocations", content=text, headers={"Content-Type": "application/json"})
            content = json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
            return answer.status_code, content

        yield send


def pixels(text: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return np.asarray(image)


FORMS: dict[str, Any] = {
    "list": CAPTIONS,
    "tuple": tuple(CAPTIONS),
    "array": np.array(CAPTIONS),
    "series": pd.Series(CAPTIONS),
    "dict of lists": {"caption": CAPTIONS},
    "dict of arrays": {"caption": np.array(CAPTIONS), "id": np.array([1, 2])},
    "dict of tuples": {"caption": tuple(CAPTIONS), "layout": (None, None)},
    "records": [{"caption": CAPTIONS[0], "id": "x"}, {"caption": CAPTIONS[1]}],
    "frame": pd.DataFrame({"caption": CAPTIONS}),
    "frame of objects": pd.DataFrame({"caption": CAPTIONS, "layout": [None, float("nan")]}, dtype=object),
    "frame with missing values": pd.DataFrame({"caption": CAPTIONS, "id": [pd.NA, 2]}).convert_dtypes(),
}


@pytest.mark.parametrize("form", FORMS)
def test_captions_come_in_many_forms(model: PyFuncModel, expected: list[np.ndarray], form: str) -> None:
    table = model.predict(FORMS[form])
    assert table["caption"].tolist() == CAPTIONS and table["row"].tolist() == [0, 1]
    assert all(np.array_equal(pixels(text), image) for text, image in zip(table["image_png"], expected, strict=True))


def test_one_text_is_one_caption(model: PyFuncModel, expected: list[np.ndarray]) -> None:
    for data in (CAPTIONS[0], {"caption": CAPTIONS[0]}, np.array(CAPTIONS[0])):
        (text,) = model.predict(data)["image_png"]
        assert np.array_equal(pixels(text), expected[0])


def test_the_callers_index_is_kept(model: PyFuncModel) -> None:
    frame = pd.DataFrame({"caption": CAPTIONS, "id": [10, 11]}, index=pd.Index(["b", "a"], name="key"))
    table = model.predict(frame, params={"n": 2, "steps": "layout"})
    assert table.index.tolist() == ["b", "b", "a", "a"] and table.index.name == "key"
    assert table["id"].tolist() == [10, 10, 11, 11] and table["sample"].tolist() == [0, 1, 0, 1]
    assert model.predict(frame[:0]).empty and list(model.predict(frame[:0]).columns) == list(table.columns)


def test_the_loop_of_editing_closes(model: PyFuncModel) -> None:
    first = model.predict(CAPTIONS, params={"n": 3, "seed": 5})
    back = model.predict(first[["caption", "layout"]])
    for column in ("sample", "seed", "image_png", "layout"):
        assert back[column].tolist() == first[column].tolist(), column
    content = json.loads(first["layout"][0].iloc[0])
    content["objects"] = [{"label": "boat", "box": [0.1, 0.4, 0.8, 0.5]}]
    (edited,) = model.predict({"caption": CAPTIONS[:1], "layout": [json.dumps(content)]})["layout"]
    assert [(entry["label"], entry["box"]) for entry in json.loads(edited)["objects"]] == [
        ("boat", [0.1, 0.4, 0.8, 0.5])
    ]


REFUSED: dict[str, tuple[Any, dict[str, Any] | None, str]] = {
    "unknown param": (CAPTIONS, {"sed": 1}, "unknown param 'sed': did you mean seed?"),
    "unknown param beside a known one": (CAPTIONS, {"n": 2, "style": "oil"}, "unknown param 'style'"),
    "n": (CAPTIONS, {"n": 65}, "param n must be a whole number from 1 to 64, got 65"),
    "n as text": (CAPTIONS, {"n": "2"}, "'n'"),
    "steps": (CAPTIONS, {"steps": "box"}, "unknown value of param steps 'box'"),
    "unknown column": ({"caption": CAPTIONS, "colour": ["red"] * 2}, None, "unknown column 'colour'"),
    "unnamed column": (pd.DataFrame([CAPTIONS]), None, "unknown column '0'"),
    "no column": ({"id": [1]}, None, "no column caption"),
    "twice": (pd.DataFrame([CAPTIONS], columns=["caption", "caption"]), None, "column caption is there twice"),
    "lengths": ({"caption": CAPTIONS, "id": [1]}, None, "columns of different lengths: caption 2, id 1"),
    "a row": ({"caption": ["a kite", None]}, None, "row 1 has an error: caption is missing: give a text"),
    "bytes": (b"a kite", None, "row 0 has an error: caption must be a text, got b'a kite' (bytes)"),
    "nothing": (None, None, "row 0 has an error: caption is missing"),
    "a number": (5, None, "caption must be a text, got 5 (int)"),
    "a list in a list": ([["a kite"]], None, "caption must be a text, got ['a kite'] (list)"),
    "a matrix": (np.array([["a kite"]]), None, "caption must be a text, got ['a kite'] (list)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_refused_with_mlflows_error(model: PyFuncModel, name: str) -> None:
    data, params, message = REFUSED[name]
    with pytest.raises(MlflowException) as caught:
        model.predict(data, params=params)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE" and message in caught.value.message
    assert str(caught.value) == caught.value.message and "\n" not in caught.value.message


def test_params_of_a_model_around_it_are_not_its_own(model: PyFuncModel) -> None:
    inner = model.unwrap_python_model()

    class Around:
        def predict(self, data: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
            return inner.predict(None, data, {"n": 2})

    assert len(PyFuncModel(model.metadata, Around()).predict(CAPTIONS, params={"sed": 1})) == 4


def test_wrong_cells_cost_only_their_rows(model: PyFuncModel) -> None:
    cells = ["a kite", b"a kite", ["a kite"], None, float("nan"), pd.NA, 5, "zebra", np.array(["a kite"]), "a boat"]
    table = model.predict(pd.DataFrame({"caption": pd.Series(cells, dtype=object)}), params={"on_error": "row"})
    good = table["error"].isna()
    assert table.index[good].tolist() == [0, 9] and table["image_png"].notna().equals(good)
    assert table["error"][3] == table["error"][4] == table["error"][5] == "caption is missing: give a text"
    alone = model.predict(["a kite", "a boat"])
    assert table["image_png"][good].tolist() == alone["image_png"].tolist()


def test_rest_takes_columns_records_and_tables(post: Any, model: PyFuncModel) -> None:
    texts = model.predict(CAPTIONS, params={"seed": 3})["image_png"].tolist()
    payloads = (
        {"inputs": {"caption": CAPTIONS}},
        {"inputs": CAPTIONS},
        {"inputs": [{"caption": caption} for caption in CAPTIONS]},
        {"instances": [{"caption": caption} for caption in CAPTIONS]},
        {"dataframe_records": [{"caption": CAPTIONS[0], "id": 1}, {"caption": CAPTIONS[1], "layout": None}]},
        {"dataframe_split": {"columns": ["caption", "id"], "data": [[CAPTIONS[0], "x"], [CAPTIONS[1], None]]}},
    )
    for payload in payloads:
        status, answer = post(payload | {"params": {"seed": 3}})
        assert status == 200, (payload, answer)
        assert [row["image_png"] for row in answer["predictions"]] == texts, payload
        assert all(row["error"] is None and row["sample"] == 0 for row in answer["predictions"])


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"inputs": {"caption": ["a kite", None]}}, "row 1 has an error: caption is missing: give a text"),
        ({"inputs": ["zebra"]}, "row 0 has an error: caption 'zebra': this model knows none of its words"),
        ({"inputs": ["a kite"], "params": {"sed": 1}}, "unknown param 'sed': did you mean seed?"),
        ({"inputs": ["a kite"], "params": {"n": 0}}, "param n must be a whole number from 1 to 64, got 0"),
        ({"inputs": {"caption": ["a kite"], "hue": [1]}}, "unknown column 'hue'"),
        ({"dataframe_records": [{"caption": ["a kite"]}]}, "row 0 has an error: caption must be a text"),
        ({"dataframe_records": [{"caption": 5}]}, "row 0 has an error: caption must be a text, got 5 (int)"),
        ({"dataframe_records": [{"caption": "a kite", "layout": {}}]}, "row 0 has an error: layout must be a text"),
    ],
)
def test_rest_answers_wrong_input_with_the_sentence(post: Any, payload: dict[str, Any], message: str) -> None:
    status, answer = post(payload)
    assert status == 400 and answer["error_code"] == "INVALID_PARAMETER_VALUE"
    assert answer["message"].startswith(message) and "\n" not in answer["message"]


def test_rest_answers_every_row_where_asked_to(post: Any) -> None:
    rows = [{"caption": "a kite", "id": "x"}, {"caption": None, "id": "y"}, {"caption": ["a"], "id": "z"}]
    status, answer = post({"dataframe_records": rows, "params": {"on_error": "row", "steps": "layout"}})
    assert status == 200 and [row["id"] for row in answer["predictions"]] == ["x", "y", "z"]
    assert [row["error"] is None for row in answer["predictions"]] == [True, False, False]


def test_two_versions_in_one_process_run_their_own_code(saved: Path, model: PyFuncModel, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(saved, other)
    source = other / "code" / "objgan" / "generation.py"
    text = source.read_text()
    assert text.count("((images.float() + 1) * 127.5)") == 1
    source.write_text(text.replace("((images.float() + 1) * 127.5)", "(255 - (images.float() + 1) * 127.5)"))
    before, path = {name: sys.modules[name] for name in sys.modules if name.split(".")[0] == "objgan"}, sys.path
    second = mlflow.pyfunc.load_model(str(other))
    third = mlflow.pyfunc.load_model(str(saved))
    sys.path = path
    for _ in range(2):
        ours, theirs, again = (pixels(one.predict("a red kite")["image_png"][0]) for one in (model, second, third))
        assert np.array_equal(ours, again) and not np.array_equal(ours, theirs)
        assert np.abs(255 - ours.astype(int) - theirs).max() <= 1
    with pytest.raises(MlflowException, match="knows none of its words"):
        second.predict("zebra")
    names = {type(one.unwrap_python_model()._model).__module__.split(".")[0] for one in (model, second, third)}
    assert len(names) == 2 and all(re.fullmatch(r"objgan_[0-9a-f]{12}", name) for name in names)
    assert before == {name: sys.modules[name] for name in sys.modules if name.split(".")[0] == "objgan"}
    assert not list((other / "code").rglob("__pycache__")), "nothing is cached under the package's usual name"


def test_all_imports_of_the_package_mean_its_own(saved: Path, model: PyFuncModel) -> None:
    """Also of the modules that generation does not need, and of those inside functions."""
    name = type(model.unwrap_python_model()._model).__module__.split(".")[0]
    package = sys.modules[name]
    before = {name for name in sys.modules if name.split(".")[0] == "objgan"}
    for path in sorted((saved / "code" / "objgan").rglob("*.py")):
        parts = path.relative_to(saved / "code" / "objgan").with_suffix("").parts
        module = importlib.import_module(".".join((name, *(part for part in parts if part != "__init__"))))
        assert Path(str(module.__file__)).is_relative_to(saved)
        for value in vars(module).values():
            home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            assert str(home).split(".")[0] != "objgan", (path, value)
    assert {name for name in sys.modules if name.split(".")[0] == "objgan"} == before
    assert package.load.__module__ == name


def test_the_request_of_the_readme_is_answered(post: Any, repository: Path) -> None:
    (payload,) = re.findall(r"-d '(.*?)'", (repository / "pipelines" / "README.md").read_text(), re.DOTALL)
    status, answer = post(payload)
    assert status == 200 and [row["caption"] for row in answer["predictions"]] == ["a red kite"] * 2 + ["the boat"] * 2


def test_the_python_of_the_readme_runs(
    model_folder: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with a registered model, which knows the words of these captions."""
    monkeypatch.chdir(tmp_path)
    register(model_folder)
    text = (repository / "pipelines" / "README.md").read_text()
    section = text.split("\n## The registered model\n")[1].split("\n## ")[0]
    (source,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-I", "-B", "-c", source], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    first, edited = ((tmp_path / "runs" / name).read_bytes() for name in ("kite.png", "edited.png"))
    assert first.startswith(b"\x89PNG") and edited.startswith(b"\x89PNG") and first != edited
