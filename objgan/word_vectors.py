"""Word vectors that somebody else made: those of a spaCy pipeline, fitted to the words of a vocabulary.

Only a pipeline's vectors are read; none of its components runs. GloVe and the like become a pipeline with
`python -m spacy init vectors en glove.txt DIR`.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from objgan.errors import InputError
from objgan.vocabulary import UNK, cooccurrence, positive_information


@dataclass(frozen=True)
class Coverage:
    """How many of a vocabulary's words have a given vector, and how many got one from the words near them."""

    words: int
    found: int
    derived: int


class PipelineVectors:
    """The vectors of a spaCy pipeline.

    digest: sha256 of the vectors and of which word has which, not of their place
    """

    source: ClassVar[str] = "pipeline"

    def __init__(self, folder: Path) -> None:
        """Read them. `folder`: of the pipeline, or of the installed package that holds one.

        Raises:
            InputError: not a pipeline, or one without vectors.
        """
        self._vocabulary = _read(folder)
        table = self._vocabulary.vectors
        if not table.shape[1] or not len(table.data):
            raise InputError(
                f"--vectors: the pipeline {folder} has no word vectors; give one that has (..._md, ..._lg)"
            )
        self.channels = int(table.shape[1])
        self.digest = _digest(table)

    def look_up(self, word: str) -> np.ndarray | None:
        """float32 [V]: of the word as it is, with a capital, or in capitals, whichever the pipeline has first.

        Our words are lower-case; a pipeline may know "Frisbee" or "TV" alone.
        """
        for form in (word, word.capitalize(), word.upper()):
            if self._vocabulary.has_vector(form):
                vector: np.ndarray = np.asarray(self._vocabulary.get_vector(form), np.float32)
                # Rows of zeros are how some pipelines say that they know nothing of a word.
                if vector.any() and np.isfinite(vector).all():
                    return vector
        return None

    def fit(self, token_lists: Iterable[Sequence[str]], words: Sequence[str]) -> tuple[np.ndarray, Coverage]:
        """float32 [N, V] for a vocabulary's list, the most frequent first, and how many were found.

        A word that the pipeline lacks gets the mean of the frequent words within 5 of it in the captions, weighted by
        positive pointwise mutual information, with the median length of the found ones. All are scaled alike, so that
        those found have a mean square of 1 per entry, as fitted vectors have; cosines stay what they were.
        """
        vectors = np.zeros((len(words), self.channels), np.float32)
        for index, word in enumerate(words):
            vector = self.look_up(word) if index > UNK else None
            if vector is not None:
                vectors[index] = vector
        found = np.abs(vectors).max(1) > 0
        if not found.any():
            raise InputError("--vectors: the pipeline knows none of the captions' words: is it of their language?")
        scale = np.sqrt(np.square(vectors[found], dtype=np.float64).mean())
        vectors = (vectors / scale).astype(np.float32)
        counts = np.zeros(0) if found[UNK + 1 :].all() else cooccurrence(token_lists, words)
        if counts.any():
            _derive(vectors, found, positive_information(counts))
        number, there = len(words) - UNK - 1, int(found.sum())
        return vectors, Coverage(number, there, int(vectors.any(1).sum()) - there)


def _derive(vectors: np.ndarray, found: np.ndarray, information: np.ndarray) -> None:
    """Fill in, from information [N - 2, K], the rows of `vectors` [N, V] that are not `found` [N]."""
    contexts = slice(UNK + 1, UNK + 1 + information.shape[1])
    # A context without a vector of the pipeline's own says nothing: its row is zero.
    known = np.where(found[contexts, None], vectors[contexts], 0).astype(np.float64)
    length = np.median(np.linalg.norm(vectors[found], axis=1))
    for row in np.flatnonzero(~found[UNK + 1 :]):
        mean = information[row] @ known
        size = np.linalg.norm(mean)
        if size > 0:
            # Rounded, so that the number of BLAS threads does not show.
            vectors[UNK + 1 + row] = np.round(mean / size * length, 4)


def _read(folder: Path) -> Any:
    import spacy  # three seconds of import

    found = [folder / "vocab"] if (folder / "vocab").is_dir() else sorted(folder.glob("*/vocab"))
    if len(found) != 1:
        raise InputError(f"--vectors: {folder} is not a spaCy pipeline (it has no folder vocab): give its folder")
    try:
        return spacy.blank("en").vocab.from_disk(found[0])
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(f"--vectors: cannot read the pipeline {folder} ({text}): make or download it again") from None


def _digest(table: Any) -> str:
    """Over the mode, the rows in order, and which key has which row."""
    data = np.ascontiguousarray(table.data)
    # Subword vectors (floret) have no keys, but rules of their own.
    rules = [str(getattr(table.mode, "value", table.mode)), int(table.attr), table.minn, table.maxn]
    rules += [table.hash_count, table.hash_seed, table.bow, table.eow, data.shape, data.dtype.str]
    digest = hashlib.sha256(json.dumps(rules).encode())
    digest.update(data.tobytes())
    rows = sorted((int(key), int(row)) for key, row in table.key2row.items())
    digest.update(np.array(rows, [("key", "<u8"), ("row", "<i8")]).tobytes())
    return digest.hexdigest()
