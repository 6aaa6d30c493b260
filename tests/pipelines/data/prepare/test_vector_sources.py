"""Names of vector sources, their default, and wordllama's vectors."""

import importlib.util

import numpy as np
import pytest

from objgan.errors import InputError
from objgan.word_vectors import Coverage
from pipelines.cli.options import DemoOptions, PrepareOptions, RunOptions
from pipelines.data.prepare.prepare import Options
from pipelines.data.prepare.vector_sources import WordLlamaVectors, default_vectors, given_vectors


def test_every_source_has_a_name_or_is_a_folder(tmp_path) -> None:
    assert given_vectors("fitted") is None
    with pytest.raises(InputError, match="not a spaCy pipeline"):
        given_vectors(str(tmp_path))
    with pytest.raises(InputError, match="no folder wordlama: give fitted, wordllama or the folder of a spaCy"):
        given_vectors("wordlama")
    assert default_vectors("de") == "fitted"


def test_only_prepare_has_a_choice_and_the_others_say_what_they_take() -> None:
    assert hasattr(PrepareOptions, "vectors") and Options().vectors == "fitted"
    for command in (RunOptions, DemoOptions):
        assert not hasattr(command, "vectors") and "Word vectors are fitted on the captions" in str(command.__doc__)


def test_without_wordllama_fitted_is_the_default(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert default_vectors("en") == "fitted"
    with pytest.raises(InputError, match=r"--vectors wordllama: that package is not installed; pip install"):
        given_vectors("wordllama")


@pytest.mark.skipif(importlib.util.find_spec("wordllama") is None, reason="the package wordllama is not installed")
def test_wordllama_has_a_vector_of_every_word() -> None:
    vectors = given_vectors(default_vectors("en"))
    assert isinstance(vectors, WordLlamaVectors) and vectors.digest == WordLlamaVectors().digest
    words = ("<pad>", "<unk>", "dog", "spaniel", "puppy", "car", "sedan", "zxqv", "ice_cream", "three")
    fitted, coverage = vectors.fit([], words)
    assert fitted.shape == (10, 256) and fitted.dtype == np.float32 and (fitted[:2] == 0).all()
    assert fitted[2:].any(1).all() and coverage == Coverage(8, 8, 0)
    assert np.square(fitted[2:]).mean() == pytest.approx(1.0, abs=1e-3)
    norms = np.linalg.norm(fitted[2:], axis=1, keepdims=True)
    near = (fitted[2:] / norms) @ (fitted[2:] / norms).T
    assert near[0, 1] > near[0, 4] and near[3, 4] > near[3, 0], "a spaniel is nearer to dog, a sedan to car"
