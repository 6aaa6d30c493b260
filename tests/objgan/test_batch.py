"""Collating samples: padding, cutting, and columns that were not asked for."""

import numpy as np
import torch

from objgan.batch import Sample, collate


def _sample(image_id: int, objects: int, attributes: bool = True) -> Sample:
    return Sample(
        image_id=image_id,
        words=np.arange(2, 4),
        labels=np.arange(objects),
        boxes=np.zeros((objects, 4), np.float32),
        colours=np.arange(objects) - 1 if attributes else None,
        scene=image_id % 4 - 1 if attributes else None,
    )


def test_colours_are_padded_and_cut_like_labels() -> None:
    batch = collate([_sample(1, 2), _sample(7, 0), _sample(4, 5)], max_words=3, max_objects=3)
    assert batch.colours is not None and batch.scenes is not None
    assert batch.colours.dtype == batch.scenes.dtype == torch.int64
    assert batch.colours.tolist() == [[-1, 0, -1], [-1, -1, -1], [-1, 0, 1]]
    assert batch.scenes.tolist() == [0, 2, -1]
    assert batch.layout.labels.tolist() == [[0, 1, 0], [0, 0, 0], [0, 1, 2]]


def test_attributes_follow_the_batch_to_a_device() -> None:
    batch = collate([_sample(1, 2)], max_words=3, max_objects=3)
    moved = batch.to("meta")
    assert moved.colours is not None and moved.scenes is not None
    assert moved.colours.device.type == moved.scenes.device.type == "meta"
    assert moved.colours.shape == (1, 3) and moved.scenes.shape == (1,)


def test_samples_without_attributes_give_none() -> None:
    batch = collate([_sample(1, 2, attributes=False)], max_words=3, max_objects=3)
    assert batch.colours is None and batch.scenes is None
    assert batch.to("cpu").colours is None and batch.to("cpu").scenes is None
