"""The content of samples, and their order."""

import itertools
import random
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from objgan.attributes import COLOURS, SCENES
from objgan.batch import Part
from objgan.config import build_config
from objgan.errors import InputError
from objgan.vocabulary import UNK, Vocabulary, tokenize
from pipelines.data.loading.batch_plan import BatchPlan
from pipelines.data.loading.reader import ShardReader, evaluation_batch, evaluation_batches, loader, read_parts
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.prepare.source import CocoSource, split_of
from pipelines.data.shards.format import load_manifest, read_shard, read_split, save_manifest

ALL = frozenset({"image", "boxes", "masks"})


@pytest.fixture(scope="module")
def reader(prepared, data_config) -> ShardReader:
    return ShardReader(prepared, "train", ALL, data_config, 8)


def _equal(a, b) -> bool:
    return len(_tensors(a)) == len(_tensors(b)) and all(map(torch.equal, _tensors(a), _tensors(b)))


def _tensors(batch) -> list[torch.Tensor]:
    layout = batch.layout
    found = [batch.image_ids, batch.words, batch.word_count, layout.labels, layout.boxes, layout.count, layout.masks]
    return [tensor for tensor in [*found, batch.images, batch.colours, batch.scenes] if tensor is not None]


def _same(a: list[Part], b: list[Part]) -> bool:
    """Whether the parts have the same groups with the same content."""
    groups = [part.group for part in a] == [part.group for part in b]
    return groups and all(_equal(x.batch, y.batch) for x, y in zip(a, b, strict=True))


def test_objects_are_the_largest_without_crowds(reader) -> None:
    sample = reader.sample(0, 0, 0)
    shift = sample.image_id % 20
    assert sample.labels.tolist() == [1, 0]
    assert np.allclose(sample.boxes, [[0.1 + shift / 100, 0.1, 0.4, 0.4], [0.6, 0.2 + shift / 50, 0.1, 0.4]])
    assert sample.image.shape == (3, 64, 64) and sample.masks.shape == (2, 32, 32)
    # The kite is the triangle above its box's diagonal: half of 0.4 x 0.4; the person fills its box.
    assert sample.masks[0].mean() / 255 == pytest.approx(0.08, abs=0.012)
    assert sample.masks[1].mean() / 255 == pytest.approx(0.04, abs=0.012)


def test_at_most_max_objects(prepared, data_config) -> None:
    config = data_config.model_copy(update={"data": data_config.data.model_copy(update={"max_objects": 1})})
    sample = ShardReader(prepared, "train", ALL, config, 8).sample(0, 0, 0)
    assert sample.labels.tolist() == [1] and sample.masks.shape == (1, 32, 32)


def test_every_caption_belongs_to_its_image_and_all_are_drawn(reader, prepared) -> None:
    """The published loader draws one too far: one caption in six is the next image's."""
    tables = list(read_split(prepared, load_manifest(prepared), "train"))
    captions = {row["image_id"]: row["captions"] for table in tables for row in table.to_pylist()}
    image_id = reader.sample(3, 0, 0).image_id
    drawn = Counter(reader.text(3, 0, epoch) for epoch in range(200))
    assert set(drawn) == set(captions[image_id])
    assert min(drawn.values()) > 70
    for index in range(len(reader)):
        assert reader.text(index, 1, 1) in captions[reader.sample(index, 1, 1).image_id]


def test_long_captions_become_an_ordered_subset(prepared, data_config) -> None:
    reader = ShardReader(prepared, "train", frozenset(), data_config, 4)
    vocabulary = Vocabulary.load(prepared / "domain")
    seen = set()
    for epoch in range(40):
        words = reader.sample(0, 0, epoch).words
        full = vocabulary.encode_tokens(tokenize(reader.text(0, 0, epoch))).tolist()
        assert len(words) == 4 and words.dtype == np.int64
        places = iter(full)
        assert all(word in places for word in words.tolist())
        seen.add(tuple(words.tolist()))
    assert len(seen) > 10


def test_a_sample_depends_on_seed_epoch_and_image_alone(reader) -> None:
    first = reader.sample(5, 1, 2, flip=True)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - the point: global state must not matter
    again = reader.sample(5, 1, 2, flip=True)
    assert np.array_equal(first.words, again.words) and np.array_equal(first.image, again.image)
    others = [reader.sample(5, seed, epoch).words.tolist() for seed, epoch in ((1, 3), (2, 2), (7, 7), (1, 9))]
    assert any(words != first.words.tolist() for words in others)


def test_flips_mirror_everything_and_spare_captions_that_name_a_side(reader) -> None:
    mirrored = 0
    for epoch in range(60):
        plain, flipped = reader.sample(2, 0, epoch), reader.sample(2, 0, epoch, flip=True)
        assert np.array_equal(plain.words, flipped.words)
        if np.array_equal(plain.image, flipped.image):
            assert np.array_equal(plain.boxes, flipped.boxes) and np.array_equal(plain.masks, flipped.masks)
            continue
        mirrored += 1
        assert "left" not in reader.text(2, 0, epoch)
        assert np.array_equal(flipped.image, plain.image[:, :, ::-1])
        assert np.array_equal(flipped.masks, plain.masks[:, :, ::-1])
        assert np.allclose(flipped.boxes[:, 0] + flipped.boxes[:, 2], 1 - plain.boxes[:, 0], atol=1e-6)
        assert np.array_equal(flipped.boxes[:, 1:], plain.boxes[:, 1:])
    # Half of the captions name a side; half of the others are mirrored.
    assert 6 <= mirrored <= 26


def test_columns_that_were_not_asked_for_are_absent(prepared, data_config) -> None:
    reader = ShardReader(prepared, "train", frozenset({"boxes"}), data_config, 8)
    batch = read_parts(reader, BatchPlan(4, 0, 0, 1), 0)[0].batch
    assert batch.images is None and batch.layout.masks is None and not reader.flips
    assert batch.layout.boxes.shape == (4, 3, 4) and batch.words.shape == (4, 8)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory, write_coco, scenes, data_config):
    """Prepared scenes where the crowd, the largest, is white, every kite red and the person's colour not known."""
    folder = tmp_path_factory.mktemp("coloured")
    images, objects, captions = scenes(20)
    for image in images:
        image["scene"] = SCENES[image["id"] % 4] if image["id"] % 5 else None
    for one in objects:
        one["attributes"] = {"colour": "white" if one["iscrowd"] else "red" if one["category_id"] == 38 else "teal"}
    prepare(write_coco(folder / "coco", images, objects, captions), folder / "data", data_config, run_here)
    return folder / "data"


def test_attributes_are_read_with_their_objects(coloured, data_config) -> None:
    reader = ShardReader(coloured, "train", ALL | {"attributes"}, data_config, 8)
    mirrored = 0
    for index in range(len(reader)):
        for epoch in range(4):
            plain, flipped = reader.sample(index, 0, epoch), reader.sample(index, 0, epoch, flip=True)
            mirrored += not np.array_equal(plain.image, flipped.image)
            for sample in (plain, flipped):
                assert sample.labels.tolist() == [1, 0] and sample.colours.tolist() == [COLOURS.index("red"), -1]
                assert sample.scene == (sample.image_id % 4 if sample.image_id % 5 else -1)
    assert mirrored > 0
    batch = read_parts(reader, BatchPlan(4, 0, 0, 1), 0)[0].batch
    assert batch.colours.tolist() == [[0, -1, -1]] * 4 and batch.scenes.shape == (4,)


def test_attributes_that_were_not_asked_for_are_none(coloured, data_config) -> None:
    sample = ShardReader(coloured, "train", ALL, data_config, 8).sample(0, 0, 0)
    assert sample.colours is None and sample.scene is None


def test_data_without_attributes_are_refused(prepared, data_config) -> None:
    with pytest.raises(InputError, match=r"needs attributes, .* has none: .* colours or scenes"):
        ShardReader(prepared, "train", ALL | {"attributes"}, data_config, 8)


def test_evaluation_numbers_go_through_every_caption_once(reader) -> None:
    for index in range(len(reader)):
        assert reader.caption_count(index) == 2
        first = reader.evaluation_sample(index, 5)
        assert np.array_equal(first.words, reader.sample(index, 5, 0).words)
        assert reader.text(index, 5) == reader.text(index, 5, number=2) != reader.text(index, 5, number=1)
        second = reader.evaluation_sample(index, 5, 1)
        assert not np.array_equal(first.words, second.words)
        assert first.image_id == second.image_id and np.array_equal(first.image, second.image)
        assert np.array_equal(second.words, reader.evaluation_sample(index, 5, 3).words)


def test_data_without_a_needed_column_are_refused(prepared_boxes, data_config, tmp_path, write_coco, scenes) -> None:
    with pytest.raises(InputError, match=r"needs pixels, .* has none"):
        ShardReader(prepared_boxes, "train", ALL, data_config, 8)
    images, objects, captions = scenes(6)
    bare = [{k: v for k, v in record.items() if k != "segmentation"} for record in objects]
    prepare(write_coco(tmp_path / "coco", images, bare, captions), tmp_path / "data", data_config, run_here)
    with pytest.raises(InputError, match=r"needs masks, .* has none"):
        ShardReader(tmp_path / "data", "train", ALL, data_config, 8)


def test_rows_with_an_object_without_a_mask_are_left_out_and_counted(prepared_boxes, data_config) -> None:
    every = ShardReader(prepared_boxes, "train", frozenset({"boxes"}), data_config, 8)
    masked = ShardReader(prepared_boxes, "train", frozenset({"boxes", "masks"}), data_config, 8)
    assert not every.left_out
    assert masked.left_out == {"with an object without a mask": len(every) - len(masked)}
    assert {masked.sample(i, 0, 0).image_id % 2 for i in range(len(masked))} == {1}


def test_larger_pictures_than_the_stored_ones_are_refused(prepared, data_config) -> None:
    config = data_config.model_copy(update={"data": data_config.data.model_copy(update={"image_size": 128})})
    with pytest.raises(InputError, match=r"images of 64 pixels, data\.image_size is 128"):
        ShardReader(prepared, "train", ALL, config, 8)
    with pytest.raises(InputError, match="no split 'dev'"):
        ShardReader(prepared, "dev", ALL, data_config, 8)


def test_captions_without_a_known_word_are_never_drawn(tmp_path, write_coco, scenes, data_config) -> None:
    images, objects, captions = scenes(12)
    wordless = next(image["id"] for image in images if split_of(image["id"], data_config.data) == "train")
    for caption in captions:
        if caption["image_id"] == wordless or caption["id"] % 100 == 1:
            caption["caption"] = f"xyzzy{caption['id']} ?!"
    values = data_config.model_dump()
    values["data"]["min_count"] = 2
    config = build_config(values)
    prepare(write_coco(tmp_path / "coco", images, objects, captions), tmp_path / "data", config, run_here)
    reader = ShardReader(tmp_path / "data", "train", ALL, config, 8)
    assert reader.left_out == {"without a caption of known words": 1}
    for epoch in range(20):
        for index in range(len(reader)):
            sample = reader.sample(index, 0, epoch)
            assert sample.image_id != wordless and (sample.words != UNK).any()
            assert reader.text(index, 0, epoch).startswith("A kite above")


def test_resuming_gives_the_undisturbed_order(reader) -> None:
    whole = list(loader(reader, BatchPlan(6, 5, 0, 14, groups=3)))
    rest = list(loader(reader, BatchPlan(6, 5, 9, 14, groups=3)))
    assert len(rest) == 5 and all(_same(a, b) for a, b in zip(whole[9:], rest, strict=True))


@pytest.mark.parametrize("world", [2, 3, 4])
def test_workers_together_see_the_groups_that_one_sees(reader, world) -> None:
    alone = BatchPlan(8, 5, 2, 7, groups=4)
    workers = [list(loader(reader, replace(alone, rank=rank, world=world))) for rank in range(world)]
    for step, parts in enumerate(loader(reader, alone)):
        assert [part.group for part in parts] == [0, 1, 2, 3] and all(len(part.batch) == 2 for part in parts)
        assert _same([part for worker in workers for part in worker[step]], parts)


def test_a_batch_is_its_groups_one_after_the_other(reader) -> None:
    (whole,) = read_parts(reader, BatchPlan(8, 5, 0, 1), 3)
    parts = read_parts(reader, BatchPlan(8, 5, 0, 1, groups=4), 3)
    assert torch.equal(torch.cat([part.batch.images for part in parts]), whole.batch.images)
    assert torch.equal(torch.cat([part.batch.words for part in parts]), whole.batch.words)


def test_global_random_state_is_neither_used_nor_touched(reader) -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the point: global state
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first = read_parts(reader, BatchPlan(8, 5, 0, 1, groups=2), 3)
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0]) and np.array_equal(before[1], after[1]) and before[2] == after[2]
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    random.seed(2)
    assert _same(first, read_parts(reader, BatchPlan(8, 5, 0, 1, groups=2), 3))


def test_evaluation_is_in_order_fixed_and_never_mirrored(reader) -> None:
    made = list(evaluation_batches(reader, 5, 0, 12))
    assert [len(batch) for batch in made] == [5, 5, 2]
    ids = torch.cat([batch.image_ids for batch in made]).tolist()
    assert ids == sorted(ids) and len(ids) == 12
    assert _equal(made[1], evaluation_batch(reader, 1, 5, 0, 12))
    assert np.array_equal(made[0].images[3].numpy(), reader.sample(3, 0, 0).image)
    assert sum(len(batch) for batch in evaluation_batches(reader, 5, 0, 10**6)) == len(reader)
    with pytest.raises(IndexError, match="no batch 3"):
        evaluation_batch(reader, 3, 5, 0, 12)


def test_a_share_of_the_captions_is_made_from_the_layouts_of_training(prepared, data_config) -> None:
    readers = [ShardReader(prepared, "train", ALL, data_config, 8, share) for share in (0.0, 1.0)]
    plain, stated = ([reader.sample(row, 3, 0) for row in range(12)] for reader in readers)
    assert all(np.array_equal(before.boxes, after.boxes) for before, after in zip(plain, stated, strict=True))
    assert sum(before.words.tolist() != after.words.tolist() for before, after in zip(plain, stated, strict=True)) > 8
    assert [sample.words.tolist() for sample in stated] == [
        readers[1].sample(row, 3, 0).words.tolist() for row in range(12)
    ]


def test_a_reader_is_copied_by_its_arguments_not_its_content(reader, prepared, data_config) -> None:
    rebuild, arguments = reader.__reduce__()
    assert arguments == (prepared, "train", ALL, data_config, 8, 0.0)
    assert np.array_equal(rebuild(*arguments).sample(4, 0, 0).image, reader.sample(4, 0, 0).image)


def test_loader_processes_change_nothing(prepared, data_config) -> None:
    compute = data_config.compute.model_copy(update={"loader_processes": 1, "device": "cpu"})
    ahead = ShardReader(prepared, "train", ALL, data_config.model_copy(update={"compute": compute}), 8)
    here = ShardReader(prepared, "train", ALL, data_config, 8)
    order = BatchPlan(6, 4, 3, 6, rank=1, world=2, groups=3)
    pairs = list(zip(loader(ahead, order), loader(here, order), strict=True))
    assert len(pairs) == 3 and all(_same(a, b) for a, b in pairs)


def test_rows_of_many_shards_are_those_of_one(tmp_path, write_coco, scenes, data_config, monkeypatch) -> None:
    source = write_coco(tmp_path / "coco", *scenes(30))
    prepare(source, tmp_path / "one", data_config, run_here)
    monkeypatch.setattr("pipelines.data.prepare.prepare.ROWS_PER_SHARD", 3)
    prepare(source, tmp_path / "many", data_config, run_here)
    # Fewer than there are: shards close and open again on the way.
    monkeypatch.setattr("pipelines.data.loading.reader.OPEN_SHARDS", 2)
    one, many = (ShardReader(tmp_path / name, "train", ALL, data_config, 8) for name in ("one", "many"))
    order = BatchPlan(6, 1, 0, 9, groups=2)
    assert len(many) == len(one) > 9
    assert all(_same(a, b) for a, b in zip(loader(one, order), loader(many, order), strict=True))
    assert [one.text(index, 0) for index in range(len(one))] == [many.text(index, 0) for index in range(len(many))]


def _copy(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "data")
    return tmp_path / "data", tmp_path / "data" / load_manifest(prepared)["shards"][0]["name"]


def _one_line(action) -> str:
    with pytest.raises(InputError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_shard_that_was_cut_short_is_named_in_one_line(prepared, data_config, tmp_path) -> None:
    folder, shard = _copy(prepared, tmp_path)
    data = shard.read_bytes()
    opened = ShardReader(folder, "train", ALL, data_config, 8)
    shard.write_bytes(data[: len(data) // 2])
    text = _one_line(lambda: ShardReader(folder, "train", ALL, data_config, 8))
    assert f"{shard.name} has {len(data) // 2} bytes instead of {len(data)}" in text
    # One that had its index only, too: it opens shards when their turn comes.
    assert f"cannot read {shard}" in _one_line(lambda: opened.sample(0, 0, 0))


def test_a_picture_that_was_overwritten_is_named_in_one_line(prepared, data_config, tmp_path) -> None:
    folder, shard = _copy(prepared, tmp_path)
    row = read_shard(shard).slice(3, 1).to_pylist()[0]
    shard.write_bytes(shard.read_bytes().replace(row["image"], bytes(len(row["image"]))))
    reader = ShardReader(folder, "train", ALL, data_config, 8)
    assert reader.sample(2, 0, 0).image.shape == (3, 64, 64)
    assert f"image {row['image_id']} of split train" in _one_line(lambda: reader.sample(3, 0, 0))


def test_an_index_of_other_rows_is_refused(prepared, data_config, tmp_path) -> None:
    folder, _ = _copy(prepared, tmp_path)
    manifest = load_manifest(folder)
    manifest["indices"] = [
        {**file, "bytes": (folder / "_index-test.arrow").stat().st_size} for file in manifest["indices"]
    ]
    for split in ("train", "validation"):
        shutil.copyfile(folder / "_index-test.arrow", folder / f"_index-{split}.arrow")
    save_manifest(folder, manifest)
    rows = manifest["rows"]
    text = _one_line(lambda: ShardReader(folder, "train", ALL, data_config, 8))
    assert f"_index-train.arrow has {rows['test']} rows, the shards have {rows['train']}" in text


@pytest.fixture(scope="module")
def real(shared_coco, tmp_path_factory, data_config) -> ShardReader:
    """Genuine COCO pictures, prepared at 64 pixels."""
    annotations = shared_coco / "annotations"
    source = CocoSource(shared_coco / "images", annotations / "instances.json", annotations / "captions.json")
    folder = tmp_path_factory.mktemp("real") / "data"
    prepare(source, folder, data_config, run_here)
    return ShardReader(folder, "train", ALL, data_config, 8)


def _sided(text: str) -> bool:
    return any(word.startswith(("left", "right")) for word in tokenize(text))


@pytest.mark.real
def test_real_captions_that_say_left_or_right_are_never_mirrored(real) -> None:
    every = [[real.text(index, 0, 0, n) for n in range(real.caption_count(index))] for index in range(len(real))]
    chosen = [index for index, texts in enumerate(every) if any(map(_sided, texts))]
    assert len(chosen) >= 3
    seen = Counter()
    for index, epoch in itertools.product(chosen, range(40)):
        plain, flipped = real.sample(index, 3, epoch), real.sample(index, 3, epoch, flip=True)
        mirrored = not np.array_equal(plain.image, flipped.image)
        seen[_sided(real.text(index, 3, epoch)), mirrored] += 1
        if mirrored:
            assert np.array_equal(plain.image, flipped.image[:, :, ::-1])
            assert np.array_equal(plain.masks, flipped.masks[:, :, ::-1])
    assert seen[True, True] == 0 and seen[True, False] >= 10
    assert seen[False, True] / (seen[False, True] + seen[False, False]) == pytest.approx(0.5, abs=0.15)
