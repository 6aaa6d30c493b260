"""Sources of word vectors for `prepare --vectors`: the package wordllama, or the folder of a spaCy pipeline."""

import hashlib
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from safetensors.numpy import load_file

from objgan.errors import InputError
from objgan.files import sha256
from objgan.vocabulary import UNK
from objgan.word_vectors import Coverage, PipelineVectors

_WORDLLAMA_FILES = ("weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json")


class GivenVectors(Protocol):
    """Vectors that are not fitted on the captions.

    source: their name in the manifest; digest: sha256 of them, not of their place; channels: of a vector
    """

    source: ClassVar[str]
    digest: str
    channels: int

    def fit(self, token_lists: Iterable[Sequence[str]], words: Sequence[str]) -> tuple[np.ndarray, Coverage]:
        """float32 [N, V] for a vocabulary's list, with a mean square of 1 per entry, and how many words have one."""
        ...


FITTED, WORDLLAMA = "fitted", "wordllama"
SOURCES = (FITTED, WORDLLAMA)
"""Sources of word vectors that have a name."""


def given_vectors(choice: str) -> GivenVectors | None:
    """The vectors of `--vectors`: "wordllama", or the folder of a spaCy pipeline; None of "fitted".

    Raises:
        InputError: wordllama is not installed, or there is no such folder, or it is no pipeline with vectors.
    """
    if choice == FITTED:
        return None
    if choice != WORDLLAMA and not Path(choice).is_dir():
        raise InputError(f"--vectors: no folder {choice}: give {', '.join(SOURCES)} or the folder of a spaCy pipeline")
    return WordLlamaVectors() if choice == WORDLLAMA else PipelineVectors(Path(choice))


def default_vectors(language: str) -> str:
    """Those of the command `prepare`: "wordllama" for English captions if that package is installed, else "fitted".

    `run`, `demo` and `prepare.Options` take "fitted", so that their results do not depend on installed packages.
    """
    return WORDLLAMA if language == "en" and importlib.util.find_spec(WORDLLAMA) is not None else FITTED


class WordLlamaVectors:
    """The vectors of the package wordllama: a word's is the mean of those of its subword tokens, so every word has one.

    Its files are read without importing it: nothing is downloaded, and no model runs (Miller 2024,
    https://github.com/dleemiller/WordLlama).
    """

    source: ClassVar[str] = "wordllama"

    def __init__(self) -> None:
        """Read the tokenizer and the vectors of all tokens.

        Raises:
            InputError: the package is not installed, or lacks these files.
        """
        package = importlib.util.find_spec(WORDLLAMA)
        if package is None or package.origin is None:
            raise InputError("--vectors wordllama: that package is not installed; pip install 'objgan[workflow]'")
        folder = Path(package.origin).parent
        weights, rules = (folder / name for name in _WORDLLAMA_FILES)
        try:
            from tokenizers import Tokenizer  # comes with wordllama

            self._tokenizer = Tokenizer.from_file(str(rules))
            self._tokenizer.no_padding()
            (self._vectors,) = load_file(weights).values()
        except (ImportError, OSError, ValueError) as error:
            raise InputError(f"--vectors wordllama: cannot read {folder} ({error}); install it again") from None
        self.channels = int(self._vectors.shape[1])
        self.digest = hashlib.sha256(f"{sha256(weights)} {sha256(rules)}".encode()).hexdigest()

    def fit(self, token_lists: Iterable[Sequence[str]], words: Sequence[str]) -> tuple[np.ndarray, Coverage]:
        """As `GivenVectors.fit`. The mean over the vocabulary is subtracted: the tokens' vectors share a direction."""
        vectors = np.zeros((len(words), self.channels), np.float32)
        for index, word in enumerate(words[UNK + 1 :], UNK + 1):
            tokens = self._tokenizer.encode(word.replace("_", " "), add_special_tokens=False).ids
            vectors[index] = self._vectors[tokens].astype(np.float64).mean(0)
        known = vectors[UNK + 1 :]
        known -= known.mean(0)
        known /= max(1e-6, float(np.sqrt(np.square(known, dtype=np.float64).mean())))
        # Rounded, so that the order of sums does not show.
        return np.round(vectors, 4), Coverage(len(known), len(known), 0)
