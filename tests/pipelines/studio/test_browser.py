"""A person at the page of `studio`, in Debian's chromium: skipped where it, or playwright, is absent."""

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from objgan.generation import ObjGAN
from objgan.layout_file import parse_layout
from objgan.picture import png
from pipelines.studio.app import PictureService, build_app
from pipelines.studio.server import address_of, listen, new_server
from tests.tools.gated import Gated

api = pytest.importorskip("playwright.sync_api", reason="no playwright: install the `dev` extra")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: Debian has it as package `chromium`")
CAPTION = "two red kites above a boat"


@pytest.fixture(scope="module")
def model(model_folder: Path) -> ObjGAN:
    return ObjGAN.load(model_folder, "cpu")


@contextlib.contextmanager
def served(model: ObjGAN) -> Iterator[str]:
    """The address of a server, for a block."""
    with listen("127.0.0.1", 0) as listening:
        server = new_server(build_app(PictureService(model, "models:/test/1"), "127.0.0.1"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield address_of(listening)
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def address(model: ObjGAN) -> Iterator[str]:
    with served(model) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        # The sandbox does not start as root, nor where chromium is unpacked and not installed.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Person:
    """One browser session at the page, which must send nothing elsewhere and log no error."""

    def __init__(self, browser: Any, address: str) -> None:
        self.page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self._see(request.url, address))
        self.page.goto(address)
        api.expect(self.page.locator("#model")).to_contain_text("models:/test/1")

    def _see(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", f"blob:{address}")):
            self.faults.append(url)

    def draw(self, caption: str, seed: int = 0, sample: int = 0) -> None:
        for name, value in (("caption", caption), ("seed", seed), ("sample", sample)):
            self.page.fill(f"#{name}", str(value))
        self.press("#draw")

    def press(self, button: str) -> None:
        """Press a button that makes a picture, and wait for it."""
        before = self.page.locator("#history li").count()
        self.page.click(button)
        api.expect(self.page.locator("#history li")).to_have_count(before + 1)

    def boxes(self) -> list[str]:
        """Labels and rounded places, in the order of the layout."""
        found = {}
        for group in self.page.locator(".box").all():
            found[int(group.get_attribute("data-index"))] = group.get_attribute("aria-label")
        return [found[index] for index in sorted(found)]

    def picture(self) -> str:
        text: str = self.page.get_attribute("#picture", "src")
        return text

    def drag(self, selector: str, across: float, down: float) -> None:
        """Drag by fractions of the stage."""
        frame, side = self.page.locator(selector).bounding_box(), self.page.locator("#stage").bounding_box()["width"]
        x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + across * side / 2, y + down * side / 2)
        self.page.mouse.move(x + across * side, y + down * side)
        self.page.mouse.up()

    def resize(self, index: int, across: float, down: float) -> None:
        self.page.locator(f"#box-{index}").focus()
        self.drag(f"#box-{index} .se", across, down)

    def download(self, button: str) -> tuple[str, bytes]:
        with self.page.expect_download() as waiting:
            self.page.click(button)
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()

    def layout(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.download("#save-layout")[1])
        return content


@pytest.fixture
def person(browser: Any, address: str) -> Iterator[Person]:
    person = Person(browser, address)
    yield person
    person.page.context.close()
    assert person.faults == []


def place(person: Person, index: int, box: tuple[float, float, float, float]) -> None:
    """Set a box by its numbers, as the keyboard would: first small, so that no value is cut at the edge."""
    person.page.locator(f"#label-{index}").focus()
    for name, value in (("w", 0.01), ("h", 0.01), *zip("xywh", box, strict=True)):
        person.page.fill(f"#{name}-{index}", str(value))
        person.page.press(f"#{name}-{index}", "Enter")


def spread(person: Person) -> None:
    """The first box at (0.1, 0.1, 0.2, 0.2), the others small at the right."""
    for index in range(len(person.boxes())):
        place(person, index, (0.8, 0.1 * index, 0.05, 0.05) if index else (0.1, 0.1, 0.2, 0.2))


def test_a_picture_is_drawn_edited_redrawn_and_downloaded(person: Person, model: ObjGAN) -> None:
    page, expect = person.page, api.expect
    person.draw("two purple kites above a boat", seed=3)
    expect(page.locator("#words")).to_contain_text("does not know: purple")
    expect(page.locator("#facts .kept")).not_to_have_count(0)
    first = person.layout()
    assert first["seed"] == 3 and len(person.boxes()) == len(first["objects"]) >= 3
    before = person.picture()

    person.press("#redraw")
    assert person.picture() == before, "not edited, but another picture"
    assert person.layout() == first

    spread(person)
    person.drag("#box-0", 0.1, 0.2)
    assert person.boxes()[0].endswith(", 20 %, 30 %, 20 %, 20 %")
    person.resize(0, 0.1, 0.05)
    assert person.boxes()[0].endswith(", 20 %, 30 %, 30 %, 25 %")
    page.fill("#label-1", "stop sign")
    page.press("#label-1", "Enter")
    # Of two kites, one goes: by its label, or it is removed.
    kite = next((i for i, text in enumerate(person.boxes()) if i > 1 and text.startswith("kite")), 2)
    page.locator(f"#box-{kite}").focus()
    page.keyboard.press("Delete")
    expect(page.locator("#edited")).to_be_visible()
    expect(page.locator("#facts .broken")).not_to_have_count(0)
    edited = person.boxes()
    assert len(edited) == len(first["objects"]) - 1 and edited[1].startswith("stop sign, 80 %")
    person.press("#redraw")
    expect(page.locator("#edited")).to_be_hidden()
    assert sorted(person.boxes()) == sorted(edited)
    assert person.picture() != before

    (png_name, png_bytes), (json_name, layout) = person.download("#save-png"), person.download("#save-layout")
    assert (png_name, json_name) == ("two-purple-kites-above-a-boat_0.png", "two-purple-kites-above-a-boat_0.json")
    given = parse_layout(layout.decode(), model.rules)
    (again,) = model.generate(["two purple kites above a boat"], layouts=[given])
    assert png_bytes == png(again.image)

    page.click("#back")
    assert person.picture() == before and person.layout() == first
    expect(page.locator("#edited")).to_be_hidden()
    page.click("#forward")
    assert sorted(person.boxes()) == sorted(edited)
    page.locator("#history button").first.click()
    assert person.picture() == before


def test_the_keyboard_alone_suffices(person: Person) -> None:
    page = person.page
    page.keyboard.type(CAPTION)  # the caption has the focus
    page.keyboard.press("Enter")
    api.expect(page.locator("#history li")).to_have_count(1)
    place(person, 0, (0.3, 0.3, 0.2, 0.2))
    page.locator("#see-picture").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className.baseVal").startswith("box")
    page.locator("#box-0").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "Shift+ArrowRight", "Shift+ArrowUp"):
        page.keyboard.press(key)
    assert person.boxes()[0].endswith(", 31 %, 32 %, 21 %, 19 %")
    for _ in range(90):
        page.keyboard.press("ArrowLeft")
    assert person.boxes()[0].endswith(", 0 %, 32 %, 21 %, 19 %"), "boxes stay in the picture"
    for _ in range(90):
        page.keyboard.press("ArrowRight")
    assert person.boxes()[0].endswith(", 79 %, 32 %, 21 %, 19 %"), "and keep their size"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "label-0"
    page.fill("#new-label", "boat")
    page.keyboard.press("Enter")
    assert person.boxes()[-1] == "boat, 35 %, 35 %, 30 %, 30 %"


def test_a_box_is_drawn_where_nothing_is(person: Person) -> None:
    person.draw(CAPTION)
    spread(person)
    person.page.fill("#new-label", "stop sign")
    frame = person.page.locator("#stage").bounding_box()
    x, y, side = frame["x"], frame["y"], frame["width"]
    person.page.mouse.move(x + 0.2 * side, y + 0.5 * side)
    person.page.mouse.down()
    person.page.mouse.move(x + 0.4 * side, y + 0.6 * side)
    person.page.mouse.move(x + 0.6 * side, y + 0.7 * side)
    person.page.mouse.up()
    assert person.boxes()[-1] == "stop sign, 20 %, 50 %, 40 %, 20 %"
    person.press("#redraw")
    entry = next(entry for entry in person.layout()["objects"] if entry["box"] == [0.2, 0.5, 0.4, 0.2])
    assert "mask" in entry, "the model draws the shape of a new box"


def test_a_wrong_label_and_a_wrong_caption_are_said_on_the_page(person: Person) -> None:
    page, message = person.page, person.page.locator("#message")
    person.draw(CAPTION)
    page.fill("#label-0", "bot")
    page.press("#label-0", "Enter")
    api.expect(message).to_contain_text("did you mean boat?")
    page.click("#redraw")
    api.expect(message).to_contain_text("did you mean boat?")
    assert page.locator("#history li").count() == 1
    page.click("#reset")
    api.expect(message).to_be_hidden()
    page.fill("#caption", "xyzzy <b>quux</b>")
    api.expect(message).to_contain_text("knows none of its words")
    assert message.locator("b").count() == 0


def test_a_caption_changes_and_the_layout_stays(person: Person, model: ObjGAN) -> None:
    person.draw("a red kite above a boat", seed=2, sample=1)
    before = person.layout()
    person.page.fill("#caption", "a kite above a boat")
    person.press("#redraw")
    after = person.layout()
    assert (after["objects"], after["seed"], after["sample"]) == (before["objects"], 2, 1)
    (made,) = model.generate(["a kite above a boat"], layouts=[parse_layout(json.dumps(before), model.rules)])
    assert person.download("#save-png")[1] == png(made.image)
    person.page.click("#back")
    assert person.page.input_value("#caption") == "a red kite above a boat"


def test_a_layout_file_is_opened_and_a_hostile_one_is_refused(person: Person, tmp_path: Path) -> None:
    file = tmp_path / "layout.json"
    label = '<img src=x onerror="alert(1)">'
    content = {"caption": "the boat", "objects": [{"label": label, "box": [0.1, 0.1, 0.5, 0.5]}]}
    file.write_text(json.dumps(content))
    person.page.set_input_files("#open", file)
    api.expect(person.page.locator("#message")).to_contain_text("unknown label")
    content["objects"][0]["label"] = "boat"
    file.write_text(json.dumps(content))
    person.page.set_input_files("#open", file)
    api.expect(person.page.locator("#history li")).to_have_count(1)
    assert person.boxes() == ["boat, 10 %, 10 %, 50 %, 50 %"]
    assert person.page.input_value("#caption") == "the boat"


def test_two_people_do_not_mix(person: Person, browser: Any, address: str, model: ObjGAN) -> None:
    other = Person(browser, address)
    both = ((person, "the boat"), (other, "a red kite"))
    for one, caption in both:
        one.page.fill("#caption", caption)
    for one, _ in both:
        one.page.click("#draw")
    for one, caption in both:
        api.expect(one.page.locator("#history li")).to_have_count(1)
        (made,) = model.generate([caption])
        assert one.download("#save-png")[1] == png(made.image)
        assert one.download("#save-layout")[1].decode() == made.layout_json(model.domain.classes)
    other.page.context.close()
    assert other.faults == []


def test_the_page_is_usable_while_a_picture_is_drawn(browser: Any, model: ObjGAN) -> None:
    gated = Gated(model.config, model.domain, model.networks)
    gated.gate.set()
    with served(gated) as address:
        first, second = Person(browser, address), Person(browser, address)
        first.draw(CAPTION)
        gated.gate.clear()
        first.page.click("#draw")
        api.expect(first.page.locator("#doing")).to_contain_text("drawing")
        second.page.fill("#caption", "the boat")
        second.page.click("#draw")
        api.expect(second.page.locator("#doing")).to_contain_text("waiting, 1 before you")
        place(first, 0, (0.1, 0.1, 0.2, 0.2))
        first.page.fill("#caption", "xyzzy")
        api.expect(first.page.locator("#message")).to_contain_text("knows none of its words")
        second.page.click("#cancel")
        api.expect(second.page.locator("#progress")).to_be_hidden()
        gated.gate.set()
        api.expect(first.page.locator("#history li")).to_have_count(2)
        assert gated.most == 1
        first.page.click("#back")
        assert first.boxes()[0].endswith(", 10 %, 10 %, 20 %, 20 %"), "edits made meanwhile are kept"
        for one in (first, second):
            one.page.context.close()
            assert one.faults == []
