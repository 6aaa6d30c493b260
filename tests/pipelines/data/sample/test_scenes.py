import dataclasses
from collections import Counter

import numpy as np
import pytest

from pipelines.data.sample.drawing import PAINTERS, draw, pen_for, visible_masks
from pipelines.data.sample.kinds import BACKGROUNDS, KIND, KINDS
from pipelines.data.sample.scene import Scene, Thing
from pipelines.data.sample.scenes import build_scene


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [build_scene(5, i, 128) for i in range(400)]


def _thing(kind: str, colour: str | None = None, seed: int = 0) -> Thing:
    return Thing(kind, colour, "grass", 0, (10, 12, 60, 60), False, (seed,))


def test_every_kind_can_be_drawn_and_occurs_on_every_background_it_may(scenes: list[Scene]) -> None:
    assert set(PAINTERS) == set(KIND) and len(KIND) >= 14
    seen = {(s.background, g.kind) for s in scenes for g in s.groups}
    assert {background for background, _ in seen} == set(BACKGROUNDS)
    assert {kind for _, kind in seen} == set(KIND)
    assert all(background in KIND[kind].zones for background, kind in seen)


def test_discs_have_one_silhouette_and_differ_inside() -> None:
    kinds = ("clock", "pizza", "frisbee", "sports ball")
    drawn = [pen_for(_thing(kind, "red")) for kind in kinds]
    silhouettes = {pen.silhouette().tobytes() for pen in drawn}
    assert len(silhouettes) == 1
    assert len({pen.sprite().colours.tobytes() for pen in drawn}) == len(kinds)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_drawing_fills_its_box_and_leaves_its_corners(kind: object) -> None:
    name = kind.name  # type: ignore[attr-defined]
    mask = visible_masks([_thing(name, "red")], 80, 90)[0]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert rows[0] >= 12 and rows[-1] < 72 and columns[0] >= 10 and columns[-1] < 70
    assert rows[-1] - rows[0] >= 52 and columns[-1] - columns[0] >= 46
    assert 0.15 < mask.sum() / 3600 < 0.9


def test_a_later_thing_hides_an_earlier_one() -> None:
    behind = _thing("car", "red")
    front = dataclasses.replace(_thing("pizza"), box=(40, 30, 40, 40))
    alone = visible_masks([behind], 90, 90)[0]
    back, top = visible_masks([behind, front], 90, 90)
    assert not (back & top).any()
    assert np.array_equal(back, alone & ~top) and back.sum() < alone.sum()


def test_things_lie_where_they_belong(scenes: list[Scene]) -> None:
    for scene in scenes:
        for thing in scene.things:
            x, y, w, h = thing.box
            assert x >= 0 and y >= 0 and x + w <= scene.width and y + h <= scene.height
            foot, middle = (y + h) / scene.height, (y + h / 2) / scene.height
            if thing.zone in ("sky", "wall"):
                assert middle < scene.horizon + 0.12
            else:
                assert foot > scene.horizon + 0.03
            if thing.zone == "sand":
                assert foot > scene.shore


def test_no_thing_is_mostly_hidden_and_counts_agree(scenes: list[Scene]) -> None:
    cut = 0
    for scene in scenes:
        assert [g.count for g in scene.groups] == [len(scene.members(n)) for n in range(len(scene.groups))]
        for thing, mask in zip(scene.things, scene.masks, strict=True):
            whole = visible_masks([thing], scene.width, scene.height)[0].sum()
            assert mask.sum() >= 0.44 * whole
            cut += mask.sum() < 0.9 * whole
    assert cut > 20


def test_numbers_sizes_and_crowds_vary_as_they_should(scenes: list[Scene]) -> None:
    counts = Counter(len(s.things) for s in scenes)
    assert 0 < counts[0] < 0.1 * len(scenes)
    assert sum(counts[n] for n in range(1, 7)) > 0.88 * len(scenes) and max(counts) > 6
    assert {g.size for s in scenes for g in s.groups} == {None, "small", "large"}
    assert any(g.crowd for s in scenes for g in s.groups)
    sides = [
        max(t.box[2] / s.width, t.box[3] / s.height) for s in scenes for t in s.things if not s.groups[t.group].crowd
    ]
    assert np.quantile(sides, 0.1) > 0.15 and np.quantile(sides, 0.9) < 0.55
    assert len({(s.width, s.height) for s in scenes}) >= 4


def test_a_picture_follows_from_seed_index_and_side() -> None:
    one, again, other = build_scene(1, 7, 96), build_scene(1, 7, 96), build_scene(2, 7, 96)
    assert one.things == again.things and draw(one).tobytes() == draw(again).tobytes()
    assert draw(one).tobytes() != draw(other).tobytes()
    assert draw(one).size == (one.width, one.height)


def test_things_stand_out_from_what_is_behind_them(scenes: list[Scene]) -> None:
    for scene in scenes[:60]:
        empty = dataclasses.replace(scene, things=(), groups=(), masks=())
        before, after = (np.asarray(draw(s), dtype=float) for s in (empty, scene))
        for mask in scene.masks:
            assert np.abs(after - before)[mask].mean() > 25
