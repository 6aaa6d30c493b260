import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import objgan
from objgan.config import Config
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.generation import Generated, ObjGAN, to_pixels
from objgan.layout import Layout
from objgan.layout_file import parse_layout, read_layout
from objgan.stages import NETWORKS, build_network

CAPTIONS = ["two red kites above a boat", "sheep on the sea", "a person beside the stop sign"]


def same(ours: Generated, theirs: Generated) -> bool:
    layouts = [(a.labels, a.boxes, a.masks) for a in (ours.layout, theirs.layout)]
    equal = all(a is not None and b is not None and torch.equal(a, b) for a, b in zip(*layouts, strict=True))
    return equal and all(np.array_equal(a, b) for a, b in zip(ours.scales, theirs.scales, strict=True))


def boxes_of(layout: Layout) -> Layout:
    return replace(layout, masks=None)


def with_objects(made: list[Generated]) -> Generated:
    return max(made, key=lambda one: len(one.names))


def test_samples_come_caption_by_caption_in_every_size(model: ObjGAN) -> None:
    made = model.generate(CAPTIONS[:2], n=2, seed=3)
    assert [(one.caption, one.index, one.seed) for one in made] == [(c, k, 3) for c in CAPTIONS[:2] for k in (0, 1)]
    for one in made:
        assert [scale.shape for scale in one.scales] == [(32, 32, 3), (64, 64, 3)]
        assert one.image.dtype == np.uint8 and one.image is one.scales[-1]
        assert one.layout.masks is not None and one.layout.masks.shape == (1, 4, 32, 32)
        assert set(one.layout.masks.unique().tolist()) <= {0, 255}
        assert len(one.names) == int(one.layout.count[0])


def test_the_same_call_gives_the_same_and_seeds_and_indices_differ(model: ObjGAN) -> None:
    first, again = model.generate(CAPTIONS, n=2), model.generate(CAPTIONS, n=2)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not same(first[0], first[1])
    assert not same(first[0], model.generate(CAPTIONS[:1], seed=1)[0])


def test_a_sample_does_not_depend_on_its_batch(model: ObjGAN) -> None:
    together, alone = model.generate(CAPTIONS, n=2, batch_size=8), model.generate(CAPTIONS, n=2)
    assert all(same(one, model.generate([one.caption], n=2)[one.index]) for one in alone)
    for a, b in zip(together, alone, strict=True):
        assert a.names == b.names
        torch.testing.assert_close(a.layout.boxes, b.layout.boxes, atol=1e-5, rtol=0)
        # Sums run in another order in another batch: a rounding step apart at most.
        assert np.abs(a.image.astype(int) - b.image.astype(int)).max() <= 1


def test_global_randomness_is_neither_used_nor_moved(model: ObjGAN) -> None:
    torch.manual_seed(1)
    first, state = model.generate(CAPTIONS[:1])[0], torch.get_rng_state()
    torch.manual_seed(2)
    assert same(first, model.generate(CAPTIONS[:1])[0])
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_a_layout_given_back_gives_the_same_image_and_layout_for_every_sample(model: ObjGAN) -> None:
    made = model.generate(CAPTIONS, n=3, seed=5)
    assert with_objects(made).names, "the untrained box generator drew nothing: choose another seed"
    for one in made:
        text = one.layout_json(model.domain.classes)
        (back,) = model.generate([one.caption], layouts=[parse_layout(text, model.rules)])
        assert same(one, back) and (back.index, back.seed) == (one.index, 5)
        assert back.layout_json(model.domain.classes) == text


def test_samples_of_a_given_layout_go_on_from_its_own(model: ObjGAN) -> None:
    third = model.generate(CAPTIONS[:1], n=3, seed=5)[2]
    given = parse_layout(third.layout_json(model.domain.classes), model.rules)
    again, next_one = model.generate(CAPTIONS[:1], n=2, layouts=[given])
    assert same(third, again) and [(one.index, one.seed) for one in (again, next_one)] == [(2, 5), (3, 5)]
    assert not np.array_equal(again.image, next_one.image)
    (other,) = model.generate(CAPTIONS[:1], seed=6, layouts=[given])
    assert (other.index, other.seed) == (2, 6) and not np.array_equal(other.image, again.image)


def test_samples_can_be_asked_for_by_number(model: ObjGAN) -> None:
    all_ = model.generate(["a kite", "two boats"], n=4, seed=3)
    some = model.generate(["a kite", "two boats"], n=[3, 1], seed=3)
    assert [one.index for one in some] == [3, 1, 3, 1]
    assert all(same(ours, all_[place]) for ours, place in zip(some, (3, 1, 7, 5), strict=True))


def test_noise_does_not_depend_on_the_words(model: ObjGAN) -> None:
    """Both captions are the same words to the networks."""
    first, second = model.generate(["a zebra kite", "a zeppelin kite"], n=2, seed=1)[::2]
    assert first.caption != second.caption and same(first, second)


def test_other_words_for_a_given_layout_leave_the_layout_alone(model: ObjGAN) -> None:
    one = with_objects(model.generate(["a red kite above a boat"], n=3))
    given = parse_layout(one.layout_json(model.domain.classes), model.rules)
    (blue,) = model.generate(["a blue kite above a boat"], layouts=[given])
    assert torch.equal(blue.layout.boxes, one.layout.boxes) and blue.layout.masks is not None
    assert one.layout.masks is not None and torch.equal(blue.layout.masks, one.layout.masks)
    moved = np.abs(blue.image.astype(int) - one.image).mean()
    (other,) = model.generate(["a blue kite above a boat"], seed=1, layouts=[given])
    assert 0 < moved < np.abs(other.image.astype(int) - one.image).mean()


def test_an_edit_changes_the_shapes_of_no_other_object(tiny_config: Config, domain: Domain) -> None:
    """With templates alone, a shape depends on its box, class and noise."""
    shapes = tiny_config.shapes.model_copy(update={"template": 8})
    config = tiny_config.model_copy(update={"shapes": shapes})
    torch.manual_seed(0)
    networks = {name: build_network(name, config, domain) for name in NETWORKS}
    torch.nn.init.normal_(networks["shape_generator"].templates.offset.weight)  # type: ignore[union-attr, arg-type]
    model = ObjGAN(config, domain, networks)
    boxes = ([0.1, 0.1, 0.8, 0.8], [0.1, 0.2, 0.5, 0.5], [0.3, 0.4, 0.4, 0.4])
    objects = [{"label": label, "box": box} for label, box in zip(("boat", "kite", "kite"), boxes, strict=True)]

    def drawn(objects: list) -> tuple[list[dict], Generated]:
        given = parse_layout(json.dumps({"objects": objects}), model.rules)
        (one,) = model.generate(CAPTIONS[:1], layouts=[given])
        return json.loads(one.layout_json(model.domain.classes))["objects"], one

    first, _ = drawn(objects)
    assert [entry["place"] for entry in first] == [0, 1, 2]
    bare = [{key: entry[key] for key in ("label", "place", "box")} for entry in first]
    assert drawn(bare)[0] == first
    assert drawn(bare[1:])[0] == first[1:], "the largest object is removed"
    small = bare[0] | {"box": [0.1, 0.1, 0.2, 0.2]}
    resized, _ = drawn([small, *bare[1:]])
    assert resized[:2] == first[1:] and resized[2]["place"] == 0, "the largest object is the smallest now"
    copied, _ = drawn([*bare, bare[1]])
    assert [entry["place"] for entry in copied] == [0, 1, 3, 2], (
        "the copy is of the same size: it comes after its model"
    )
    assert copied[1] == first[1] and copied[2]["mask"] != first[1]["mask"]


def test_layouts_alone_are_those_of_the_images(model: ObjGAN) -> None:
    for one, full in zip(model.generate(CAPTIONS, images=False), model.generate(CAPTIONS), strict=True):
        classes = model.domain.classes
        assert one.scales == () and one.layout_json(classes) == full.layout_json(classes)


def test_boxes_alone_get_shapes_and_given_masks_stay(model: ObjGAN) -> None:
    boxes = torch.tensor([[[0.1, 0.1, 0.8, 0.5], [0.2, 0.6, 0.4, 0.3], [0.0] * 4, [0.0] * 4]])
    layout = Layout(torch.tensor([[1, 0, 0, 0]]), boxes, torch.tensor([2]))
    one = model.generate(CAPTIONS[:1], layouts=[layout])[0]
    assert torch.equal(one.layout.boxes, boxes) and one.names == ("boat", "kite")
    assert one.layout.masks is not None
    assert (one.layout.masks[0, :2] > 0).any((1, 2)).all() and not one.layout.masks[0, 2:].any()
    drawn = torch.zeros(1, 4, 32, 32, dtype=torch.uint8)
    drawn[0, 0, 4:12, 4:12] = 255
    half = model.generate(CAPTIONS[:1], layouts=[layout.with_masks(drawn)])[0]
    assert half.layout.masks is not None and torch.equal(half.layout.masks, drawn)


def test_missing_masks_are_generated_beside_given_ones(model: ObjGAN, tmp_path: Path) -> None:
    boxes = torch.tensor([[[0.1, 0.1, 0.8, 0.5], [0.2, 0.6, 0.4, 0.3], [0.0] * 4, [0.0] * 4]])
    full = model.generate(CAPTIONS[:1], layouts=[Layout(torch.tensor([[1, 0, 0, 0]]), boxes, torch.tensor([2]))])[0]
    path = tmp_path / "layout.json"
    path.write_text(full.layout_json(model.domain.classes))
    content = json.loads(path.read_text())
    del content["objects"][1]["mask"]
    path.write_text(json.dumps(content))
    given = read_layout(path, model.rules)
    assert given.drawn.tolist() == [[True, False, False, False]]
    assert same(full, model.generate(CAPTIONS[:1], layouts=[given])[0])


@torch.no_grad()
def test_the_steps_give_the_generated_image(model: ObjGAN) -> None:
    caption = CAPTIONS[0]
    one = model.generate([caption], seed=3)[0]
    noise = {name: model.noise(name, [f"3\0{0}\0{name}"]) for name in NETWORKS if "generator" in name}
    words, count = torch.zeros(1, model.config.data.max_words, dtype=torch.int64), torch.tensor([len(one.words.ids)])
    words[0, : len(one.words.ids)] = torch.from_numpy(one.words.ids)
    text = model.encode(words, count)
    boxes = model.boxes(words, count, text, noise["box_generator"], [one.words.statements])
    layout = model.shapes(boxes, noise["shape_generator"])
    image = model.images(words, text, layout, noise["image_generator"])[-1]
    assert torch.equal(layout.boxes, one.layout.boxes)
    assert np.array_equal(to_pixels(image)[0], one.image)


def test_an_empty_layout_and_mixed_ones_are_drawn(model: ObjGAN) -> None:
    empty = Layout(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, 4), torch.tensor([0]))
    made = model.generate(CAPTIONS[:2], layouts=[empty, None])
    assert made[0].names == () and np.isfinite(made[0].image).all()
    assert made[1].names == model.generate(CAPTIONS[1:2])[0].names


def test_only_the_first_words_count(model: ObjGAN) -> None:
    words = "two red kites above a boat on the"
    assert len(words.split()) == model.config.data.max_words
    assert np.array_equal(model.read_caption(words).ids, model.read_caption(f"{words} sea beside people").ids)


@pytest.mark.parametrize("caption", ["", " ", "?!", "zebra crossing", "a kite \ud800"])
def test_captions_without_known_words_are_refused_by_name(model: ObjGAN, caption: str) -> None:
    with pytest.raises(InputError) as caught:
        model.generate(["a kite", caption])
    assert repr(caption) in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_word_among_known_ones_is_allowed(model: ObjGAN) -> None:
    assert model.generate(["a zebra kite"])[0].image.shape == (64, 64, 3)


def test_layouts_must_fit(model: ObjGAN) -> None:
    empty = Layout(torch.zeros(1, 7, dtype=torch.int64), torch.zeros(1, 7, 4), torch.tensor([0]))
    with pytest.raises(ValueError, match="1 layouts for 2 captions"):
        model.generate(CAPTIONS[:2], layouts=[None])
    with pytest.raises(ValueError, match="4 places"):
        model.generate(CAPTIONS[:1], layouts=[empty])


def test_a_saved_model_loads_and_generates_the_same(model: ObjGAN, tmp_path: Path) -> None:
    model.save(tmp_path / "model", sources={"run": "a"})
    loaded = objgan.load(tmp_path / "model", device="cpu")
    assert loaded.config == model.config and loaded.domain.classes == model.domain.classes
    ours, theirs = model.generate(CAPTIONS), loaded.generate(CAPTIONS)
    assert all(same(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not any(
        parameter.requires_grad for network in loaded.networks.values() for parameter in network.parameters()
    )
    assert not any(network.training for network in loaded.networks.values())
    facts = json.loads((tmp_path / "model" / "model.json").read_text())
    assert facts["objgan"] == objgan.__version__ and facts["sources"] == {"run": "a"}
    files = {p.relative_to(tmp_path / "model").as_posix() for p in (tmp_path / "model").rglob("*") if p.is_file()}
    assert files == {*facts["sha256"], "model.json"}
    assert {Path(name).suffix for name in files} == {".json", ".safetensors"}


def _remove(folder: Path) -> None:
    (folder / "networks" / "box_generator.safetensors").unlink()


def _cut(folder: Path) -> None:
    path = folder / "networks" / "image_generator.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _edit(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


def _newer(folder: Path) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


def _nonsense(folder: Path) -> None:
    (folder / "model.json").write_text("[1]")


FAULTS = {
    "box_generator.safetensors is missing": _remove,
    "image_generator.safetensors was changed": _cut,
    "config.json was changed": _edit,
    "format 99": _newer,
    "is not a model's model.json": _nonsense,
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_broken_folder_is_refused_in_one_line(model: ObjGAN, tmp_path: Path, message: str) -> None:
    model.save(tmp_path / "model")
    fault: Callable[[Path], None] = FAULTS[message]
    fault(tmp_path / "model")
    with pytest.raises(InputError, match=message) as caught:
        objgan.load(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="finished model"):
        objgan.load(tmp_path / "nothing")


def test_networks_must_be_complete(tiny_config: Config, domain: Domain) -> None:
    with pytest.raises(ValueError, match="box_generator not given"):
        ObjGAN(tiny_config, domain, {n: torch.nn.Identity() for n in NETWORKS if n != "box_generator"})
