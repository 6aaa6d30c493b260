"""The server of `studio` without a browser: what it draws, what it refuses, and that one request costs no other."""

import asyncio
import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from objgan.generation import Generated, ObjGAN
from objgan.layout_file import parse_layout
from objgan.picture import png
from pipelines.studio.app import DrawRequest, PictureService, build_app
from tests.tools.gated import Gated

CAPTION = "two red kites above a boat"
Post = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def model(model_folder: Path) -> ObjGAN:
    return ObjGAN.load(model_folder, "cpu")


@pytest.fixture(scope="module")
def client(model: ObjGAN) -> Iterator[TestClient]:
    with TestClient(
        build_app(PictureService(model, "a model"), "127.0.0.1"), base_url="http://localhost:8600"
    ) as client:
        yield client


@pytest.fixture(scope="module")
def post(client: TestClient) -> Post:
    """post(address, body) -> status and the last line of the answer."""

    def send(address: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        answer = client.post(address, content=content, headers={"Content-Type": "application/json", **headers})
        return answer.status_code, json.loads(answer.text.splitlines()[-1])

    return send


def drawn(post: Post, **order: Any) -> tuple[bytes, str]:
    status, answer = post("/api/draw", order)
    assert status == 200 and answer["state"] == "done", answer
    return base64.b64decode(answer["png"]), answer["layout"]


def alone(model: ObjGAN, caption: str, **more: Any) -> bytes:
    (made,) = model.generate([caption], **more)
    return png(made.image)


def test_a_picture_is_that_of_its_caption_seed_and_sample(post: Post, model: ObjGAN) -> None:
    assert drawn(post, caption=CAPTION)[0] == alone(model, CAPTION)
    picture, layout = drawn(post, caption=CAPTION, seed=5, sample=2)
    assert picture == png(model.generate([CAPTION], n=3, seed=5)[2].image)
    assert (json.loads(layout)["seed"], json.loads(layout)["sample"]) == (5, 2)


@pytest.mark.parametrize("sample", [0, 3])
def test_an_unedited_layout_gives_the_same_bytes(post: Post, sample: int) -> None:
    first = drawn(post, caption=CAPTION, seed=1, sample=sample)
    assert drawn(post, caption=CAPTION, layout=first[1]) == first


def test_an_edit_changes_what_it_touches(post: Post) -> None:
    picture, layout = drawn(post, caption=CAPTION)
    content = json.loads(layout)
    content["objects"][-1] = {"label": "stop sign", "box": [0.1, 0.2, 0.3, 0.25]}
    other, answer = drawn(post, caption=CAPTION, layout=json.dumps(content))
    assert other != picture
    after = json.loads(answer)["objects"]
    assert next(entry for entry in after if entry["label"] == "stop sign")["box"] == [0.1, 0.2, 0.3, 0.25]
    kept = [entry for entry in after if entry["label"] != "stop sign"]
    assert kept == content["objects"][:-1]


def test_another_caption_keeps_the_noise_of_a_layout(post: Post, model: ObjGAN) -> None:
    _, layout = drawn(post, caption="a red kite", seed=3, sample=1)
    picture, after = drawn(post, caption="a kite", layout=layout)
    assert picture == alone(model, "a kite", layouts=[parse_layout(layout, model.rules)])
    assert json.loads(after)["objects"] == json.loads(layout)["objects"]


def test_a_check_says_what_the_model_does_not_know_and_what_the_layout_keeps(post: Post) -> None:
    layout = {
        "objects": [{"label": "kite", "box": [0.1, 0.6, 0.2, 0.2]}, {"label": "boat", "box": [0.1, 0.1, 0.2, 0.2]}]
    }
    caption = "one purple kite above a boat"
    status, answer = post("/api/check", {"caption": caption, "layout": json.dumps(layout)})
    assert status == 200 and answer["unknown_words"] == ["one", "purple"]
    facts = {fact["fact"]: fact["kept"] for fact in answer["facts"]}
    assert facts["1 x kite"] and not facts["kite above boat"]
    assert post("/api/check", {"caption": caption})[1]["facts"] == []


BOX = [0.1, 0.1, 0.2, 0.2]


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"caption": ""}, "no words"),
        ({"caption": "xyzzy"}, "knows none of its words"),
        ({"caption": "kite " * 20_000}, "shorten it"),
        ({"caption": 5}, "caption must be a text"),
        ({"capton": "a kite"}, "did you mean caption?"),
        ({"caption": "a kite", "seed": -1}, "seed must be a whole number"),
        ({"caption": "a kite", "seed": 2**60}, "seed must be a whole number"),
        ({"caption": "a kite", "sample": 1.5}, "sample must be a whole number"),
        ({"caption": "a kite", "seed": True}, "seed must be a whole number"),
        ({"caption": "a kite", "layout": {"objects": []}}, "layout must be a text"),
        ([], "must be an object"),
        ("{", "is not JSON"),
        ('{"caption": "a kite", "seed": NaN}', "holds NaN"),
        ('{"caption": "a", "caption": "b"}', "twice"),
        ('{"caption": ' + "[" * 100 + "]" * 100 + "}", "nested more than"),
        (b'{"caption": "\xff"}', "no UTF-8"),
        ("[" + "0," * 300_000 + "0]", "values"),
    ],
)
def test_a_wrong_request_gets_one_clear_sentence(post: Post, order: Any, said: str) -> None:
    status, answer = post("/api/draw", order)
    assert status == 400 and said in answer["error"] and len(answer["error"].splitlines()) == 1, answer
    assert len(answer["error"]) < 2100


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"objects": [{"label": "bot", "box": BOX}]}, "did you mean boat?"),
        ({"objects": [{"label": "kite", "box": [0.9, 0.1, 0.2, 0.2]}]}, "leaves the image"),
        ({"objects": [{"label": "kite", "box": [0, 0, 0, 1]}]}, "no area"),
        ({"objects": [{"label": "kite", "box": BOX}] * 9}, "at most 8"),
        ({"objects": [{"label": "kite", "box": BOX, "onclick": "x"}]}, "unknown key"),
        ({"objects": [{"label": "kite", "box": BOX, "mask": {"size": [9**9, 9**9], "counts": "1"}}]}, "mask size"),
        ({"objects": [{"label": "kite", "box": BOX, "mask": {"size": [32, 32], "counts": "1" * 99}}]}, "mask"),
        ({"objects": [], "seed": 2**62}, "seed must be a whole number"),
        ({"objects": [], "sample": -1}, "sample must be a whole number"),
        ("<script>", "is not JSON"),
        ('{"objects": ' + "[" * 100_000, "layout"),
    ],
)
def test_a_hostile_layout_is_refused(post: Post, layout: Any, said: str) -> None:
    text = layout if isinstance(layout, str) else json.dumps(layout)
    for address in ("/api/draw", "/api/check"):
        status, answer = post(address, {"caption": "a kite", "layout": text})
        assert status == 400 and said in answer["error"], answer


def test_a_large_request_is_refused(client: TestClient) -> None:
    for content in (b" " * (5 << 20), iter([b" " * (1 << 20)] * 5)):  # with its length in a header, and without
        answer = client.post("/api/draw", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413 and "4 MiB" in answer.json()["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8600", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": "127.0.0.1:1", "Origin": "http://127.0.0.1:1"}, 200),
        ({"Host": "[::1]:8600", "Origin": "http://[::1]:8600"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:8600"}, 421),
        ({"Host": "[::1"}, 421),
        ({"Host": ""}, 421),
        ({"Content-Type": "text/plain"}, 415),
    ],
)
def test_only_its_own_page_can_use_it(post: Post, headers: dict[str, str], status: int) -> None:
    assert post("/api/check", {"caption": "a kite"}, **headers)[0] == status


def test_another_site_can_neither_read_the_page_nor_show_it_in_a_frame(client: TestClient) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
    headers = client.get("/").headers
    assert "access-control-allow-origin" not in headers
    assert headers["x-frame-options"] == "DENY" and "frame-ancestors 'none'" in headers["content-security-policy"]


def test_the_page_names_no_other_place_and_may_load_nothing_from_one(client: TestClient) -> None:
    for name in ("/", "/page.css", "/page.js"):
        answer = client.get(name)
        assert answer.status_code == 200
        assert set(re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s\"']*", answer.text)) <= {"http://www.w3.org/2000/svg"}
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in answer.headers["content-security-policy"]
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", client.get("/page.js").text)


@pytest.mark.parametrize(
    "path", ["/app.py", "/page.html", "/../app.py", "/%2e%2e/cli/studio.py", "/docs", "/openapi.json"]
)
def test_only_three_files_are_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.fixture
def gated(model: ObjGAN) -> Gated:
    return Gated(model.config, model.domain, model.networks)


def test_pictures_are_drawn_one_at_a_time_and_block_nothing_else(gated: Gated) -> None:
    service = PictureService(gated, "a model")
    app = build_app(service, "127.0.0.1")

    async def lines(caption: str) -> list[dict[str, Any]]:
        return [json.loads(line) async for line in service.draw(DrawRequest(caption))]

    async def everything() -> list[list[dict[str, Any]]]:
        drawing = [asyncio.create_task(lines(caption)) for caption in ("a red kite", "the boat", "a kite")]
        await asyncio.to_thread(gated.began.wait, 30)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost") as client:
            answer = await client.post("/api/check", json={"caption": "a kite"})
            assert answer.status_code == 200 and (await client.get("/")).status_code == 200
        gated.gate.set()
        return await asyncio.gather(*drawing)

    answers = asyncio.run(everything())
    assert gated.most == 1
    assert [line["state"] for line in answers[0]] == ["drawing", "done"]
    assert answers[2][0] == {"state": "waiting", "ahead": 2}
    assert [json.loads(lines[-1]["layout"])["caption"] for lines in answers] == ["a red kite", "the boat", "a kite"]
    assert base64.b64decode(answers[1][-1]["png"]) == alone(gated, "the boat")


def test_too_many_pictures_at_once_are_refused(gated: Gated) -> None:
    service = PictureService(gated, "a model")

    async def everything() -> int:
        drawing = [service.draw(DrawRequest("a kite")) for _ in range(16)]
        first = [asyncio.create_task(one.__anext__()) for one in drawing]
        await asyncio.sleep(0)
        await asyncio.gather(*first)
        transport = httpx2.ASGITransport(app=build_app(service, "127.0.0.1"))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            status = (await client.post("/api/draw", json={"caption": "a kite"})).status_code
        for one in drawing:  # their pages are closed
            await one.aclose()
        assert not service.is_full
        return status

    assert asyncio.run(everything()) == 503


def test_a_bug_in_a_picture_is_said_and_the_next_picture_is_drawn(model: ObjGAN, logs: list[str]) -> None:
    class Failing(ObjGAN):
        failures = 1

        def generate(self, *arguments: Any, **more: Any) -> list[Generated]:
            if self.failures:
                self.failures -= 1
                raise RuntimeError("out of memory at 0x1234")
            return super().generate(*arguments, **more)

    with TestClient(
        build_app(PictureService(Failing(model.config, model.domain, model.networks), ""), ""),
        base_url="http://localhost",
    ) as client:
        answer = json.loads(client.post("/api/draw", json={"caption": "a kite"}).text.splitlines()[-1])
        assert answer["state"] == "failed" and "0x1234" not in answer["error"]
        assert logs == ["warning: a picture failed: RuntimeError: out of memory at 0x1234"]
        assert json.loads(client.post("/api/draw", json={"caption": "a kite"}).text.splitlines()[-1])["state"] == "done"
