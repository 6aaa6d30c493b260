from pathlib import Path

import numpy as np
import pytest
import spacy

from objgan.errors import InputError
from objgan.vocabulary import UNK, Vocabulary, known_words, project_vectors
from objgan.word_vectors import Coverage, PipelineVectors

TOKENS = [["a", "red", "kite"], ["a", "red", "blorp"], ["red", "blorp"], ["zyx"], ["a", "TV".lower()], ["frisbee"]]
VECTORS = {"a": [1, 0, 0, 0], "red": [0, 2, 0, 0], "kite": [0, 0, 2, 0], "TV": [0, 0, 0, 3], "Frisbee": [1, 1, 1, 1]}


def make_pipeline(folder: Path, vectors: dict[str, list[float]]) -> Path:
    """A pipeline with vectors and nothing else, as `spacy init vectors` writes them."""
    pipeline = spacy.blank("en")
    if vectors:
        pipeline.vocab.reset_vectors(width=len(next(iter(vectors.values()))))
    for word, vector in vectors.items():
        pipeline.vocab.set_vector(word, np.array(vector, np.float32))
    pipeline.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> PipelineVectors:
    return PipelineVectors(make_pipeline(tmp_path_factory.mktemp("pipeline") / "en", VECTORS))


def test_words_are_found_in_the_forms_a_pipeline_may_have(pipeline) -> None:
    assert pipeline.channels == 4
    assert pipeline.look_up("red").tolist() == [0, 2, 0, 0]
    assert pipeline.look_up("tv").tolist() == [0, 0, 0, 3] and pipeline.look_up("frisbee").tolist() == [1] * 4
    assert pipeline.look_up("blorp") is None


def test_missing_words_get_the_mean_of_those_near_them(pipeline) -> None:
    words = known_words(TOKENS, 1)
    vectors, coverage = pipeline.fit(TOKENS, words)
    assert vectors.dtype == np.float32 and vectors.shape == (len(words), 4)
    # zyx stands alone: nothing is near it.
    assert coverage == Coverage(words=7, found=5, derived=1)
    by_word = dict(zip(words, vectors, strict=True))
    assert not by_word["zyx"].any() and not vectors[: UNK + 1].any()
    found = np.stack([by_word[word] for word in ("a", "red", "kite", "tv", "frisbee")])
    assert np.square(found).mean() == pytest.approx(1)
    # Angles and proportions are the pipeline's.
    assert by_word["red"][1] / by_word["a"][0] == pytest.approx(2) and by_word["red"] @ by_word["kite"] == 0
    # Near blorp stand red, twice, and a, once: a mean of these two alone, closer to red.
    derived = by_word["blorp"]
    assert derived[1] > derived[0] >= 0 and not derived[2:].any()
    assert np.linalg.norm(derived) == pytest.approx(np.median(np.linalg.norm(found, axis=1)), rel=1e-3)


def test_the_same_vectors_give_the_same_bytes(pipeline) -> None:
    words = known_words(TOKENS, 1)
    assert pipeline.fit(TOKENS, words)[0].tobytes() == pipeline.fit(tuple(map(tuple, TOKENS)), words)[0].tobytes()


def test_labels_of_several_words_average(pipeline) -> None:
    words = known_words(TOKENS, 1)
    vocabulary = Vocabulary(words, pipeline.fit(TOKENS, words)[0])
    by_word = dict(zip(words, vocabulary.vectors, strict=True))
    (label,) = vocabulary.label_vectors(["red kite"])
    assert np.allclose(label, (by_word["red"] + by_word["kite"]) / 2)


def test_any_width_is_projected_where_fewer_channels_are_asked_for(pipeline) -> None:
    vectors, _ = pipeline.fit(TOKENS, known_words(TOKENS, 1))
    assert project_vectors(vectors, 3).shape == (len(vectors), 3)
    with pytest.raises(InputError, match=r"4 channels but images\.word_channels asks for 5"):
        project_vectors(vectors, 5)


def test_the_digest_is_of_the_vectors_not_of_their_place(pipeline, tmp_path) -> None:
    assert PipelineVectors(make_pipeline(tmp_path / "copy", VECTORS)).digest == pipeline.digest
    changed = {**VECTORS, "red": [0, 2, 0, 0.001]}
    assert PipelineVectors(make_pipeline(tmp_path / "changed", changed)).digest != pipeline.digest
    renamed = {("blue" if word == "red" else word): vector for word, vector in VECTORS.items()}
    assert PipelineVectors(make_pipeline(tmp_path / "renamed", renamed)).digest != pipeline.digest


def test_an_installed_package_s_folder_will_do(pipeline, tmp_path) -> None:
    (tmp_path / "en_core").mkdir()
    make_pipeline(tmp_path / "en_core" / "en_core-1.0", VECTORS)
    assert PipelineVectors(tmp_path / "en_core").digest == pipeline.digest


def test_what_is_no_pipeline_with_vectors_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"--vectors: .*nothing is not a spaCy pipeline"):
        PipelineVectors(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"--vectors: .* has no word vectors"):
        PipelineVectors(make_pipeline(tmp_path / "bare", {}))
    broken = make_pipeline(tmp_path / "broken", VECTORS)
    (broken / "vocab" / "vectors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"--vectors: cannot read the pipeline"):
        PipelineVectors(broken)
    foreign = PipelineVectors(make_pipeline(tmp_path / "foreign", {"Bratwurst": [1.0, 2.0]}))
    with pytest.raises(InputError, match="none of the captions' words"):
        foreign.fit(TOKENS, known_words(TOKENS, 1))
