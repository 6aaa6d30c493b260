"""Bad requests over REST: each has status 400 and a true message, and a bad row costs no other row."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from fastapi.testclient import TestClient
from mlflow.pyfunc import scoring_server

from pipelines.models.registry import pyfunc_parts

Post = Callable[[Any], tuple[int, Any]]


@pytest.fixture(scope="module")
def post(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Post]:
    """post(payload) -> status and answer of MLflow's scoring server; an exception in it is status 500."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend("")  # MLflow puts the model's code on the path, and this takes it back
        mlflow.pyfunc.save_model(folder, **pyfunc_parts(model_folder))
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
        app = scoring_server.init(mlflow.pyfunc.load_model(str(folder)))
        client = TestClient(app, raise_server_exceptions=False)

        def send(payload: Any) -> tuple[int, Any]:
            text = payload if isinstance(payload, str | bytes) else json.dumps(payload)
            answer = client.post("/invocations", content=text, headers={"Content-Type": "application/json"})
            return answer.status_code, answer.json()

        yield send


def layout(**content: Any) -> dict[str, Any]:
    return {"caption": "a kite", "layout": json.dumps(content)}


def placed(**changes: Any) -> dict[str, Any]:
    return layout(objects=[{"label": "kite", "box": [0.1, 0.1, 0.3, 0.3]} | changes])


BOX = {"label": "kite", "box": [0, 0, 1, 1]}
ROWS: dict[str, tuple[Any, str]] = {
    "no caption": ({"caption": None}, "caption is missing: give a text"),
    "no words": ({"caption": "  "}, "caption ' ' has no words"),
    "unknown words": ({"caption": "zebra"}, "caption 'zebra': this model knows none of its words"),
    "a number": ({"caption": 5}, "caption must be a text, got 5 (int)"),
    "a truth": ({"caption": True}, "caption must be a text, got True (bool)"),
    "a list": ({"caption": ["a kite"]}, "caption must be a text, got ['a kite'] (list)"),
    "an object": ({"caption": {"a": 1}}, "caption must be a text, got {'a': 1} (dict)"),
    "a long caption": ({"caption": "kite " * 20_000}, "caption 'kite kite"),
    "id with a fraction": ({"caption": "a kite", "id": 1.5}, "id must be a text or a whole number, got 1.5 (float)"),
    "id a list": ({"caption": "a kite", "id": [1]}, "id must be a text or a whole number, got [1] (list)"),
    "id a truth": ({"caption": "a kite", "id": True}, "id must be a text or a whole number, got True (bool)"),
    "layout an object": ({"caption": "a kite", "layout": {}}, "layout must be a text, the JSON of a layout file"),
    "layout a number": ({"caption": "a kite", "layout": 5}, "layout must be a text, the JSON of a layout file, got 5"),
    "layout empty": ({"caption": "a kite", "layout": ""}, "layout is not JSON"),
    "layout cut off": ({"caption": "a kite", "layout": "{"}, "layout is not JSON"),
    "layout NaN": ({"caption": "a kite", "layout": "NaN"}, "layout holds NaN, which is no number of JSON"),
    "layout deep": ({"caption": "a kite", "layout": "[" * 50_000}, "layout is nested more than 32 deep"),
    "layout a list": ({"caption": "a kite", "layout": "[]"}, 'layout: no "objects" list'),
    "no objects": (layout(), 'layout: no "objects" list'),
    "object a number": (layout(objects=[5]), 'layout: object 1 must be {"label": ..., "box": [x, y, w, h]}, got 5'),
    "many objects": (layout(objects=[BOX] * 500), "layout: 500 objects, but this model takes at most"),
    "seed a text": (layout(objects=[BOX], seed="x"), "layout: seed must be a whole number, got 'x'"),
    "sample below 0": (layout(objects=[BOX], sample=-1), "layout: sample must be a whole number from 0 up, got -1"),
    "unknown label": (placed(label="zebra"), "layout: object 1: unknown label 'zebra': choose one of"),
    "unknown key": (placed(hue=1), "layout: object 1: unknown key 'hue'"),
    "three numbers": (placed(box=[0, 0, 1]), "layout: object 1 (kite): box must be four numbers"),
    "no area": (placed(box=[0, 0, -1, 1]), "layout: object 1 (kite): box [0, 0, -1, 1] has no area"),
    "outside": (placed(box=[0, 0, 9, 9]), "layout: object 1 (kite): box [0, 0, 9, 9] leaves the image"),
    "infinite": (placed(box=[0, 0, float("inf"), 1]), "layout holds Infinity, which is no number of JSON"),
    "mask a text": (placed(mask="x"), "layout: object 1 (kite): mask must be"),
    "place below 0": (placed(place=-1), "layout: object 1 (kite): place must be a whole number from 0 to"),
}
WHOLE: dict[str, tuple[Any, str]] = {
    "nothing": ("", "valid JSON formatted string"),
    "cut off": ('{"inputs": ["a kite"]', "valid JSON formatted string"),
    "no UTF-8": (b"\xff\xfe", "valid JSON formatted string"),
    "null": ("null", "must be a JSON dictionary"),
    "a list": (["a kite"], "must be a JSON dictionary"),
    "no field": ({"captions": ["a kite"]}, "must be a JSON dictionary with exactly one of the input fields"),
    "two fields": ({"inputs": ["a kite"], "instances": ["a kite"]}, "Received dictionary with input fields"),
    "no column": ({"inputs": {"id": [1]}}, "no column caption"),
    "unknown column": ({"inputs": {"caption": ["a kite"], "hue": [1]}}, "unknown column 'hue'"),
    "capital": ({"dataframe_records": [{"Caption": "a kite"}]}, "unknown column 'Caption'"),
    "twice": (
        {"dataframe_split": {"columns": ["caption", "caption"], "data": [["a kite", "a boat"]]}},
        "column caption is there twice",
    ),
    "lengths": ({"inputs": {"caption": ["a kite", "a boat"], "id": [1]}}, "columns of different lengths"),
    "records": ({"dataframe_records": {}}, "must be a list of records"),
    "split": ({"dataframe_split": []}, "must be a dictionary"),
    "more data than columns": ({"dataframe_split": {"columns": ["caption"], "data": [["a", "b"]]}}, "1 columns passed"),
    **{
        f"{name} {value!r}": ({"inputs": ["a kite"], "params": {name: value}}, message)
        for name, value, message in (
            ("sed", 1, "unknown param 'sed': did you mean seed?"),
            ("n", 0, "param n must be a whole number from 1 to 64, got 0"),
            ("n", 10**30, "param n must be a whole number from 1 to 64, got 1000"),
            ("n", 1.5, "Can not safely convert `<class 'float'>` to `DataType.long` for value `1.5`"),
            ("n", True, "Can not safely convert `<class 'bool'>` to `DataType.long` for value `True`"),
            ("seed", 2**63, "param seed must be a whole number of 64 bits, or left out"),
            ("seed", "x", "Can not safely convert `<class 'str'>` to `DataType.long` for value `x`"),
            ("steps", "box", "unknown value of param steps 'box': choose one of layout, image"),
            ("on_error", "skip", "unknown value of param on_error 'skip': choose one of raise, row"),
        )
    },
    "params a list": ({"inputs": ["a kite"], "params": []}, "Parameters must be a dictionary. Got type 'list'"),
}


@pytest.fixture(scope="module")
def good(post: Post) -> list[str]:
    """Layouts of the rows beside a bad one."""
    status, answer = post({"inputs": ["a kite", "a boat"], "params": {"steps": "layout"}})
    assert status == 200
    return [row["layout"] for row in answer["predictions"]]


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_has_its_message_and_costs_no_other_row(post: Post, good: list[str], name: str) -> None:
    row, message = ROWS[name]
    records = {"dataframe_records": [{"caption": "a kite"}, row, {"caption": "a boat"}]}
    status, answer = post(records)
    assert status == 400 and answer["error_code"] == "INVALID_PARAMETER_VALUE"
    assert answer["message"].startswith(f"row 1 has an error: {message}") and "\n" not in answer["message"]
    assert len(answer["message"]) < 500
    status, answer = post(records | {"params": {"on_error": "row", "steps": "layout"}})
    first, bad, last = answer["predictions"]
    assert status == 200 and bad["error"].startswith(message) and bad["layout"] is None
    assert [first["layout"], last["layout"]] == good and first["error"] is last["error"] is None


@pytest.mark.parametrize("name", WHOLE)
def test_a_bad_request_has_status_400_and_a_message(post: Post, name: str) -> None:
    payload, message = WHOLE[name]
    status, answer = post(payload)
    assert status == 400 and message in answer["message"], answer


def test_texts_and_objects_in_one_list_are_rows_each(post: Post, good: list[str]) -> None:
    rows = [{"caption": "a kite"}, 5, "a boat"]
    status, answer = post({"inputs": rows, "params": {"on_error": "row", "steps": "layout"}})
    first, bad, last = answer["predictions"]
    assert status == 200 and [first["layout"], last["layout"]] == good
    assert bad["error"] == "caption must be a text, got 5 (int)"
