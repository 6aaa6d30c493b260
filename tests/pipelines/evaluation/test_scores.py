"""Scores of hand-made samples: perfect, permuted and constant generators."""

import numpy as np
import pytest
import torch

from pipelines.evaluation.protocols import FROM_CAPTIONS, FROM_LAYOUTS, TRUE_IMAGES, Protocol
from pipelines.evaluation.scores import SampleMetrics, Score, score, text_table

PROTOCOL = Protocol("p")
NUMBER, CHANNELS = 1500, 16


def samples_of(**rows: torch.Tensor) -> SampleMetrics:
    """Captions and true images have the same vectors; images of the given rows have the given vectors."""
    vectors = torch.randn(NUMBER, CHANNELS, generator=torch.Generator().manual_seed(0))
    words = torch.arange(NUMBER)[:, None].expand(-1, 4)
    samples = SampleMetrics()
    arrays = {
        f"{TRUE_IMAGES}/words_p": words,
        f"{TRUE_IMAGES}/caption_vectors_p": vectors,
        f"{TRUE_IMAGES}/image_vectors_p": vectors,
        **{f"{row}/image_vectors_p": value for row, value in rows.items()},
    }
    samples.add(arrays, [(index, 0) for index in range(NUMBER)])
    return samples


def scores_of(samples: SampleMetrics, protocol: Protocol = PROTOCOL) -> dict[str, Score]:
    return score(samples, protocol, seed=0)[0]


def test_true_images_have_distance_0_from_themselves_and_retrieve_their_captions() -> None:
    vectors = samples_of().vectors[f"{TRUE_IMAGES}/image_vectors_p"]
    scores = scores_of(samples_of(from_layouts=torch.from_numpy(vectors)))
    for row in (TRUE_IMAGES, FROM_LAYOUTS):
        assert scores[f"{row}/fd_encoder_p"].value == pytest.approx(0, abs=1e-9)
        assert scores[f"{row}/r_precision_p"].value == 1
    assert scores[f"{FROM_LAYOUTS}/r_precision_p"].ceiling == 1
    assert scores[f"{TRUE_IMAGES}/r_precision_p"].ceiling is None


def test_permuted_captions_are_retrieved_by_chance() -> None:
    vectors = samples_of().vectors[f"{TRUE_IMAGES}/image_vectors_p"]
    scores = scores_of(samples_of(from_layouts=torch.from_numpy(np.roll(vectors, 7, axis=0))))
    precision = scores[f"{FROM_LAYOUTS}/r_precision_p"]
    assert precision.value == pytest.approx(1 / PROTOCOL.pool, abs=0.008)
    assert precision.interval is not None and precision.interval[0] <= precision.value <= precision.interval[1]
    assert scores[f"{FROM_LAYOUTS}/fd_encoder_p"].value == pytest.approx(0, abs=1e-9), "the set of images is the same"


def test_a_constant_generator_is_the_worst() -> None:
    noisy = torch.randn(NUMBER, CHANNELS, generator=torch.Generator().manual_seed(1))
    constant = torch.ones(1, CHANNELS).expand(NUMBER, -1)
    scores = scores_of(samples_of(from_layouts=noisy, from_captions=constant))
    assert scores[f"{FROM_CAPTIONS}/r_precision_p"].value < 0.02
    assert scores[f"{FROM_CAPTIONS}/fd_encoder_p"].value > 10 * scores[f"{FROM_LAYOUTS}/fd_encoder_p"].value


def test_a_pool_larger_than_the_images_is_skipped_with_the_reason() -> None:
    scores, skipped = score(samples_of(), Protocol("p", pool=NUMBER + 1), seed=0)
    assert f"{TRUE_IMAGES}/r_precision_p" not in scores
    assert f"there are {NUMBER}" in skipped["r_precision"]


def test_captions_of_the_same_words_do_not_compete() -> None:
    samples = samples_of()
    for name in ("words", "caption_vectors", "image_vectors"):
        samples.vectors[f"{TRUE_IMAGES}/{name}_p"][: NUMBER // 2] = samples.vectors[f"{TRUE_IMAGES}/{name}_p"][0]
    assert scores_of(samples)[f"{TRUE_IMAGES}/r_precision_p"].value == 1


def test_the_distance_is_to_each_true_image_once() -> None:
    """The second half are further captions of the images in the first."""
    vectors = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    samples = SampleMetrics()
    twice = torch.cat([vectors, vectors + 5])
    names = (f"{TRUE_IMAGES}/image_vectors_p", f"{FROM_LAYOUTS}/image_vectors_p")
    keys = [(index % 40, index // 40) for index in range(80)]
    samples.add({names[0]: twice, names[1]: torch.cat([vectors, vectors])}, keys)
    scores = scores_of(samples)
    assert scores[f"{FROM_LAYOUTS}/fd_encoder_p"].value < 0.01
    assert scores[f"{FROM_LAYOUTS}/fd_encoder_p"].count == 80


def test_object_accuracy_by_class_and_by_image() -> None:
    """Class 0 is named in four captions and found in one of them, class 1 in one and found: 5/8 and 2/5."""
    named = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0]], dtype=torch.bool)
    seen = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 0], [0, 1, 0]], dtype=torch.bool)
    samples = SampleMetrics()
    samples.add({f"{TRUE_IMAGES}/named_p": named, f"{FROM_CAPTIONS}/found_p": seen}, [(i, 0) for i in range(4)])
    scores = scores_of(samples)
    assert scores[f"{FROM_CAPTIONS}/soa_c_p"].value == pytest.approx(5 / 8)
    assert scores[f"{FROM_CAPTIONS}/soa_i_p"].value == pytest.approx(2 / 5)


def test_fidelity_is_of_features_and_of_logits() -> None:
    """The same images: no distance. The same class for all: an inception score of 1."""
    features = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    logits = torch.tensor([[9.0, 0.0, 0.0]]).expand(60, -1)
    samples = SampleMetrics()
    names = {f"{row}/inception_p": features for row in (TRUE_IMAGES, FROM_CAPTIONS)}
    far = {f"{FROM_LAYOUTS}/inception_p": features + 3}
    scored = {f"{row}/inception_logits_p": logits for row in (TRUE_IMAGES, FROM_CAPTIONS, FROM_LAYOUTS)}
    samples.add({**names, **far, **scored}, [(index, 0) for index in range(60)])
    scores = scores_of(samples)
    assert scores[f"{FROM_CAPTIONS}/fid_p"].value == pytest.approx(0, abs=1e-9)
    assert scores[f"{FROM_LAYOUTS}/fid_p"].value == pytest.approx(5 * 9)
    assert scores[f"{FROM_LAYOUTS}/kid_p"].value > scores[f"{FROM_CAPTIONS}/kid_p"].value
    assert scores[f"{FROM_CAPTIONS}/is_p"].value == pytest.approx(1)
    assert f"{TRUE_IMAGES}/fid_p" not in scores


def test_samples_without_a_value_do_not_count() -> None:
    samples = SampleMetrics()
    samples.add(
        {"boxes/best_iou": torch.tensor([0.5, torch.nan, 1.0]), "boxes/none": torch.full((3,), torch.nan)}, KEYS
    )
    scores = scores_of(samples)
    assert scores["boxes/best_iou"].value == 0.75
    assert scores["boxes/best_iou"].count == 2
    assert "boxes/none" not in scores


KEYS = [(5, 0), (3, 0), (3, 1)]


def test_the_ceiling_from_captions_covers_only_what_captions_state() -> None:
    names = {"from_captions": 0.2, "from_layouts": 0.6, "true_images": 0.9}
    values = {f"{row}/object_accuracy_p": torch.full((3,), value) for row, value in names.items()}
    samples = SampleMetrics()
    samples.add({**values, "true_images/stated_object_accuracy_p": torch.full((3,), 0.8)}, KEYS)
    scores = scores_of(samples)
    assert scores["from_captions/object_accuracy_p"].ceiling == pytest.approx(0.8)
    assert scores["from_layouts/object_accuracy_p"].ceiling == pytest.approx(0.9)
    assert "true images 0.8000" in text_table(scores, {})


def test_samples_survive_serialisation_and_join() -> None:
    parts = []
    for start in (0, 2):
        part = SampleMetrics()
        part.add({"a": torch.arange(start, start + 2.0), "v": torch.ones(2, 3)}, [(start, 0), (start + 1, 4)])
        parts.append(SampleMetrics.from_bytes(part.to_bytes()))
    whole = SampleMetrics.join(parts)
    assert whole.values["a"].tolist() == [0, 1, 2, 3]
    assert whole.vectors["v"].shape == (4, 3)
    assert whole.table().to_pydict() == {
        "measure": ["a"] * 4,
        "image_id": [0, 1, 2, 3],
        "caption": [0, 4, 0, 4],
        "value": [0.0, 1.0, 2.0, 3.0],
    }
