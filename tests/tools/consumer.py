"""A consumer who has MLflow and a model's URI, nothing of this repository: `consumer.py TRACKING URI OTHER PORT`.

Every sentence of "The registered model" in pipelines/README.md is tried, in Python and over REST. OTHER is a second
version. Each failure is an AssertionError; at the end it prints "ok".
"""

import base64
import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

tracking, uri, other, port = sys.argv[1:]
assert not any(importlib.util.find_spec(name) for name in ("objgan", "pipelines", "ray")), "not a clean environment"
mlflow.set_tracking_uri(tracking)
model, second = mlflow.pyfunc.load_model(uri), mlflow.pyfunc.load_model(other)
ONE, TWO = "a red kite", "the boat"


def refused(sentence, data, **params):
    caught = None
    try:
        model.predict(data, params=params)
    except MlflowException as error:
        caught = error
    assert caught is not None and caught.error_code == "INVALID_PARAMETER_VALUE", sentence
    assert str(caught).startswith(sentence), caught


def post(payload):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", json.dumps(payload).encode())
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["message"]


def in_python():
    table = model.predict([ONE, TWO], params={"n": 2, "seed": 1})
    assert [*table["row"]] == [0, 0, 1, 1] and [*table["sample"]] == [0, 1, 0, 1] and {*table["seed"]} == {1}
    assert all(base64.b64decode(text).startswith(b"\x89PNG") for text in table["image_png"])
    assert all(type(json.loads(text)) is list for name in ("unknown_words", "facts") for text in table[name])
    png = table["image_png"].iloc[0]
    assert (
        png == model.predict(ONE, params={"seed": 1})["image_png"].iloc[0] != second.predict(ONE)["image_png"].iloc[0]
    )
    assert png == model.predict({"caption": [ONE]}, params={"seed": 1})["image_png"].iloc[0]
    assert png == model.predict([{"caption": ONE}], params={"seed": 1})["image_png"].iloc[0]
    again = model.predict(table[["caption", "layout"]])
    assert all([*again[name]] == [*table[name]] for name in ("image_png", "layout", "seed", "sample"))
    layout = json.loads(table["layout"].iloc[0])
    recoloured = model.predict([{"caption": "a kite", "layout": json.dumps(layout)}])
    assert json.loads(recoloured["layout"].iloc[0])["objects"] == layout["objects"]
    layout["objects"][0]["box"] = [0.2, 0.6, 0.6, 0.3]
    edited = model.predict([{"caption": ONE, "layout": json.dumps(layout)}], params={"n": 2})
    assert json.loads(edited["layout"].iloc[0])["objects"][0]["box"] == [0.2, 0.6, 0.6, 0.3]
    assert edited["image_png"].iloc[0] != png and [*edited["sample"]] == [0, 1]
    layouts = model.predict([ONE, TWO], params={"n": 2, "seed": 1, "steps": "layout"})
    assert layouts["image_png"].isna().all() and [*layouts["layout"]] == [*table["layout"]]
    frame = pd.DataFrame({"caption": [ONE, None, b"x", ["x"], 5, TWO], "id": [*"abcdef"]}, index=[*"uvwxyz"])
    rows = model.predict(frame, params={"on_error": "row", "seed": 1})
    assert [*rows.index] == [*"uvwxyz"] and [*rows["id"]] == [*"abcdef"]
    assert [*rows["error"].isna()] == [*rows["image_png"].notna()] == [True, False, False, False, False, True]
    assert rows["image_png"].iloc[0] == png
    refused("row 1 has an error: caption is missing", frame)
    refused("unknown param 'sed'", ONE, sed=1)
    refused("param n must be", ONE, n=65)
    refused("unknown column 'colour'", {"caption": [ONE], "colour": ["red"]})
    return table


def over_rest(table):
    asked = {"inputs": {"caption": [ONE, TWO], "id": ["x", "y"]}, "params": {"n": 2, "seed": 1}}
    status, rows = post(asked)
    assert status == 200 and [row["id"] for row in rows] == ["x", "x", "y", "y"]
    assert all(row["image_png"] == png for row, png in zip(rows, table["image_png"], strict=True))
    back = post({"dataframe_records": [{"caption": row["caption"], "layout": row["layout"]} for row in rows]})[1]
    assert [row["image_png"] for row in back] == [*table["image_png"]]
    assert (
        post({"inputs": [ONE], "params": {"sed": 1}})[0] == post({"inputs": {"caption": [ONE], "hue": [1]}})[0] == 400
    )
    status, message = post({"dataframe_records": [{"caption": ONE}, {"caption": 5}]})
    assert status == 400 and message == "row 1 has an error: caption must be a text, got 5 (int)"
    status, rows = post({"inputs": [ONE, None], "params": {"on_error": "row", "steps": "layout"}})
    assert status == 200 and [row["error"] is None for row in rows] == [True, False]


command = (*("-m", "mlflow", "models", "serve", "--env-manager", "local", "--model-uri"), uri, "--port", port)
server = subprocess.Popen([sys.executable, *command], env={**os.environ, "MLFLOW_TRACKING_URI": tracking})
try:
    table = in_python()
    for _ in range(240):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
            break
        except OSError:
            time.sleep(0.5)
    over_rest(table)
finally:
    server.terminate()
    server.wait(30)
print("ok")
