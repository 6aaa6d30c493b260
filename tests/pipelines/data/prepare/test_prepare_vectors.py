"""`prepare --vectors`: its output, and which inputs count as the same."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import spacy

from objgan.errors import InputError
from objgan.vocabulary import Vocabulary
from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import Options, prepare
from pipelines.data.shards.format import load_manifest, summary
from tests.tools.logged import logged


def _pipeline(folder: Path, known: dict[str, list[float]]) -> Path:
    pipeline = spacy.blank("en")
    pipeline.vocab.reset_vectors(width=5)
    for word, vector in known.items():
        pipeline.vocab.set_vector(word, np.array(vector, np.float32))
    pipeline.to_disk(folder)
    return folder


@pytest.fixture
def vectors(tmp_path) -> Path:
    words = ("a", "kite", "above", "person", "someone", "flies", "tree")
    return _pipeline(tmp_path / "pipeline", {word: np.eye(5)[n % 5].tolist() for n, word in enumerate(words)})


@pytest.fixture
def source(tmp_path, write_coco, scenes):
    return write_coco(tmp_path / "coco", *scenes(20))


def _go(source, out, config, vectors, lines=None):
    with logged(lines.append if lines is not None else None):
        return prepare(source, out, config, run_here, Options(vectors=str(vectors or "fitted")))


def test_the_pipeline_s_vectors_are_the_vocabulary_s(source, data_config, vectors, tmp_path) -> None:
    manifest = _go(source, tmp_path / "out", data_config, vectors)
    vocabulary = Vocabulary.load(tmp_path / "out" / "domain")
    facts = manifest["vectors"]
    assert vocabulary.vectors.shape == (len(vocabulary), 5) and facts["channels"] == 5
    assert facts["source"] == "pipeline" and facts["found"] == 7 and facts["words"] == len(vocabulary) - 2
    assert f"7 of {facts['words']} words have one in the pipeline" in summary(manifest)
    assert str(vectors) not in (tmp_path / "out" / "manifest.json").read_text()
    fitted = _go(source, tmp_path / "fitted", data_config, None)
    assert fitted["vectors"] == {"source": "captions", "sha256": None, "channels": 6}
    assert fitted["digest"] != manifest["digest"]
    of_captions = int(Vocabulary.load(tmp_path / "fitted" / "domain").vectors.any(1).sum())
    assert facts["derived"] == of_captions - 7, "every other word of the captions stands near one that is known"


def test_vectors_are_part_of_the_inputs_at_any_location(source, data_config, vectors, tmp_path) -> None:
    out, lines = tmp_path / "out", []
    _go(source, out, data_config, vectors)
    shutil.copytree(vectors, tmp_path / "elsewhere")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    _go(source, out, data_config, tmp_path / "elsewhere", lines)
    assert "nothing to do" in lines[-1]
    with pytest.raises(InputError, match=r"differently \(other --vectors\).* or use --vectors DIR, its pipeline"):
        _go(source, out, data_config, None)
    with pytest.raises(InputError, match="other --vectors"):
        _go(source, out, data_config, _pipeline(tmp_path / "other", {"kite": [1, 2, 3, 4, 5]}))
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_the_same_vectors_give_the_same_folder(source, data_config, vectors, tmp_path) -> None:
    one, other = (_go(source, tmp_path / name, data_config, vectors) for name in ("one", "other"))
    assert one == other == load_manifest(tmp_path / "one")


@pytest.mark.skipif(importlib.util.find_spec("wordllama") is None, reason="the package wordllama is not installed")
def test_wordllama_s_vectors_are_those_of_every_word(source, data_config, tmp_path) -> None:
    manifest = _go(source, tmp_path / "out", data_config, "wordllama")
    vocabulary = Vocabulary.load(tmp_path / "out" / "domain")
    assert vocabulary.vectors.shape == (len(vocabulary), 256) and vocabulary.vectors[2:].any(1).all()
    facts = load_manifest(tmp_path / "out")["vectors"]
    assert facts == manifest["vectors"] and facts["source"] == "wordllama"
    assert "256 channels, of wordllama" in summary(manifest)
    with pytest.raises(InputError, match="other --vectors"):
        _go(source, tmp_path / "out", data_config, None)
