"""Diversity over seeds, by hand."""

import pytest
import torch

from objgan.metrics.diversity import feature_diversity, pixel_diversity


def test_pixels_by_hand() -> None:
    values = torch.tensor([[-1.0, 0.0, 1.0], [0.5, 0.5, 0.5]])
    images = values[:, :, None, None, None].expand(2, 3, 3, 4, 4)
    # Differences 1, 2, 1; a generator that ignores its noise gets 0.
    assert pixel_diversity(images).tolist() == pytest.approx([4 / 3, 0])


def test_features_by_hand() -> None:
    features = torch.tensor([[[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0]], [[1.0, 2.0]] * 3, [[0.0, 0.0]] * 3])
    # Cosine distances 1, 2, 1.
    assert feature_diversity(features).tolist() == pytest.approx([4 / 3, 0, 0])


def test_one_image_has_no_diversity() -> None:
    assert pixel_diversity(torch.zeros(2, 1, 3, 4, 4)).isnan().all()
    assert feature_diversity(torch.zeros(2, 1, 8)).isnan().all()
