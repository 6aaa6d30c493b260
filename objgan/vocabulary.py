"""Vocabulary: the one tokenizer, words <-> ids, word vectors.

Word vectors are fitted on the training captions, unless other ones are given (`objgan.word_vectors`): positive
pointwise mutual information of words and the words near them, then a truncated singular value decomposition (Levy et
al. 2015, "Improving Distributional Similarity").
Everything here is deterministic; nothing is pickled.
"""

import functools
import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import safetensors
from safetensors.numpy import save

from objgan.errors import InputError, shown
from objgan.files import read_json, write_atomically
from objgan.languages import languages, tokenizer

PAD, UNK = 0, 1
SPECIAL = ("<pad>", "<unk>")
WINDOW = 5
CONTEXT_WORDS = 2048
CONTEXT_SMOOTHING = 0.75
FORMAT = 2
_MOST_CHANNELS = 4096
LONGEST_CAPTION = 50_000
"""Letters. The tokenizer takes a million, and one letter may become 18 when it is normalised."""

_PLAIN = dict.fromkeys((*range(32), *range(127, 160)), " ") | {ord(letter): "'" for letter in "\u2018\u2019\u02bc"}
"""Control characters become blanks, curly apostrophes straight ones."""
# Invisible, but not of the category Cf: a joiner, fillers of Hangul, variation selectors of Mongolian and of all.
_FILLERS = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def normalise(text: str) -> str:
    """One spelling for what looks the same: NFKC without invisible characters, single blanks, straight apostrophes.

    Halves of surrogate pairs, which JSON can say and no encoding can, become question marks.
    """
    text = text.encode("utf-8", "replace").decode()
    if not text.isascii():
        visible = (letter for letter in text if not _is_invisible(letter))
        # Of an acute accent that stands alone, NFKC would make a blank and an accent.
        text = unicodedata.normalize("NFKC", "".join(visible).replace("\u00b4", "'"))
    return " ".join(text.translate(_PLAIN).split())


def _is_invisible(letter: str) -> bool:
    """Zero-width blanks and joiners, soft hyphens, marks of direction, variation selectors, fillers."""
    return unicodedata.category(letter) == "Cf" or _FILLERS.match(letter) is not None


def tokenize(caption: str, language: str = "en") -> list[str]:
    """Lower-case words of a caption; blanks and punctuation-only tokens are dropped, contractions are split.

    The same for preparation and for generation. No token holds a blank, so they can be joined by one.

    language: code of one of spaCy's languages (see `objgan.languages`)
    """
    tokens = tokenizer(language)(normalise(caption))
    return ["_".join(token.lower_.split()) for token in tokens if any(letter.isalnum() for letter in token.text)]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """words: id -> word, `<pad>` and `<unk>` first; vectors: float32 [N, V], zero for those two.

    language: of the captions, as `tokenize` takes it
    """

    words: tuple[str, ...]
    vectors: np.ndarray
    language: str = "en"

    def __post_init__(self) -> None:
        if self.words[:2] != SPECIAL:
            raise ValueError(f"a vocabulary starts with {SPECIAL}, got {self.words[:2]}")
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.words):
            raise ValueError(f"{len(self.words)} words need as many vectors, got an array of {self.vectors.shape}")

    def __len__(self) -> int:
        return len(self.words)

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """word -> id, without the two special ones (a caption that says "<pad>" has not padded anything)."""
        return {word: index for index, word in enumerate(self.words) if index > UNK}

    def encode(self, caption: str) -> np.ndarray:
        """int64 [n]: ids of the caption's words, UNK where unknown; n may be 0."""
        return self.encode_tokens(self.tokenize(caption))

    def tokenize(self, caption: str) -> list[str]:
        """The caption's words, known or not, as the captions of the vocabulary were divided."""
        return tokenize(caption, self.language)

    def encode_tokens(self, tokens: Sequence[str]) -> np.ndarray:
        """int64 [n]: ids of words that `tokenize` made."""
        return np.array([self.ids.get(token, UNK) for token in tokens], np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The words of [n] ids, joined by blanks, without padding."""
        return " ".join(self.words[int(index)] for index in ids if int(index) != PAD)

    def label_vectors(self, classes: Sequence[str]) -> np.ndarray:
        """float32 [C, V]: the mean vector of each class name's known words; zero where none is known."""
        vectors = np.zeros((len(classes), self.vectors.shape[1]), np.float32)
        for row, name in enumerate(classes):
            ids = self.encode(name)
            if (ids != UNK).any():
                vectors[row] = self.vectors[ids[ids != UNK]].mean(0)
        return vectors

    def projected(self, channels: int, whiten: bool = False) -> Self:
        """The same words with vectors of `channels` channels (see `project_vectors`)."""
        return replace(self, vectors=project_vectors(self.vectors, channels, whiten))

    def save(self, folder: Path) -> None:
        """Write `vocabulary.json` and `vectors.safetensors` into `folder`."""
        content = {"format": FORMAT, "language": self.language, "words": list(self.words)}
        text = json.dumps(content, ensure_ascii=False, indent=0)
        write_atomically(folder / "vocabulary.json", text + "\n")
        write_atomically(folder / "vectors.safetensors", save({"vectors": np.ascontiguousarray(self.vectors)}))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: a file is missing, of a newer format, or not what `save` writes.
        """
        content = read_json(folder / "vocabulary.json", "vocabulary")
        words = content.get("words") if isinstance(content, dict) else None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise InputError(f"vocabulary: {folder / 'vocabulary.json'} holds no word list; prepare the data again")
        there = content.get("format", 0)
        if type(there) is not int or there > FORMAT:
            raise InputError(f"vocabulary: {folder} has format {shown(there)}, this version reads up to {FORMAT}")
        language = content.get("language", "en")
        if not isinstance(language, str) or language not in languages():
            raise InputError(f"vocabulary: {folder} is of the language {shown(language)}, which spaCy does not have")
        path = folder / "vectors.safetensors"
        try:
            return cls(tuple(words), _read_vectors(path, len(words)), language)
        except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
            raise InputError(f"word vectors: cannot use {path} ({error}); prepare the data again") from None


def _read_vectors(path: Path, words: int) -> np.ndarray:
    """float32 [words, V]; the file's header is looked at before any of its tensors is read.

    Raises:
        OSError, ValueError, SafetensorError: it is something else.
    """
    with safetensors.safe_open(path, "np") as file:
        names = list(file.keys())
        if names != ["vectors"]:
            raise ValueError(f"it holds {shown(names)} instead of vectors")
        part = file.get_slice("vectors")
        shape = tuple(part.get_shape())
        if len(shape) != 2 or shape[0] != words or shape[1] > _MOST_CHANNELS or part.get_dtype() != "F32":
            raise ValueError(f"{shape} of {part.get_dtype()} are no vectors of {words} words")
        vectors: np.ndarray = file.get_tensor("vectors")
    if not np.isfinite(vectors).all():
        raise ValueError("not all of them are finite")
    return vectors


def known_words(token_lists: Iterable[Sequence[str]], min_count: int) -> tuple[str, ...]:
    """The word list of a vocabulary: words that occur at least `min_count` times, the most frequent first."""
    counts = Counter(token for tokens in token_lists for token in tokens)
    known = sorted((word for word, n in counts.items() if n >= min_count), key=lambda word: (-counts[word], word))
    return (*SPECIAL, *known)


def extended(words: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    """A vocabulary's words, and behind them those of `more` that are not among them."""
    known = set(words)
    return (*words, *(word for word in dict.fromkeys(more) if word not in known))


def fit_vectors(token_lists: Iterable[Sequence[str]], words: Sequence[str], channels: int) -> np.ndarray:
    """float32 [N, channels]: PPMI within 5 words (contexts: the 2,048 most frequent words), truncated SVD.

    `words` is a vocabulary's list, the most frequent first. Vectors are U sqrt(S), signs fixed, scaled to a mean square
    of 1 per entry, rounded (so that the number of BLAS threads does not show); channels beyond the rank are zero.
    """
    vectors = np.zeros((len(words), channels), np.float32)
    counts = cooccurrence(token_lists, words)
    if counts.sum() == 0:
        return vectors
    ppmi = positive_information(counts)
    values, axes = np.linalg.eigh(ppmi.T @ ppmi)
    kept = np.argsort(-values, kind="stable")[:channels]
    kept = kept[values[kept] > 1e-9 * values.max()]
    # M V = U S, and S^2 are the eigenvalues of M^T M: hence U sqrt(S) = M V / S^(1/2).
    fitted = _fix_signs(ppmi @ axes[:, kept] / values[kept] ** 0.25)
    scale = np.sqrt(np.square(fitted).mean())
    vectors[UNK + 1 :, : len(kept)] = np.round(fitted / scale, 4)
    return vectors


def project_vectors(vectors: np.ndarray, channels: int, whiten: bool = False) -> np.ndarray:
    """float32 [N, V] -> [N, channels]: onto the principal axes about the origin, which keep inner products best.

    Linear, so zero stays zero and means stay means. Vectors that are as wide already come back unchanged, unless they
    are whitened: then each axis with a variance over 0 has a mean square of 1, which separates words of similar use.

    Raises:
        InputError: the vectors are narrower than that.
    """
    width = vectors.shape[1]
    if width < channels:
        raise InputError(
            f"word vectors have {width} channels but images.word_channels asks for {channels}: lower it, or prepare "
            f"with data.vector_channels={channels} (or other --vectors)"
        )
    if width == channels and not whiten:
        return vectors
    wide = vectors.astype(np.float64)
    values, axes = np.linalg.eigh(wide.T @ wide)
    kept = np.argsort(-values, kind="stable")[:channels]
    projected = wide @ axes[:, kept]
    if whiten:
        size = np.sqrt(values[kept].clip(1e-9 * max(values.max(), 1e-300)) / len(wide))
        projected = projected / size * (values[kept] > 1e-9 * values.max())
    return np.round(_fix_signs(projected), 4).astype(np.float32)


def cooccurrence(token_lists: Iterable[Sequence[str]], words: Sequence[str]) -> np.ndarray:
    """float64 [N - 2, K]: how often context word k stands within `WINDOW` words of word n, in one caption."""
    ids = {word: index - UNK - 1 for index, word in enumerate(words) if index > UNK}
    size, contexts = len(ids), min(len(ids), CONTEXT_WORDS)
    counts = np.zeros(size * contexts)
    remaining = iter(token_lists)
    while part := list(itertools.islice(remaining, 4096)):
        _count_near(part, ids, contexts, counts)
    return counts.reshape(size, contexts)


def _count_near(token_lists: Sequence[Sequence[str]], ids: dict[str, int], contexts: int, counts: np.ndarray) -> None:
    """Add to `counts`, flat [(N - 2) * K], whole numbers: in how many parts captions come does not show."""
    text, caption = [], []
    for number, tokens in enumerate(token_lists):
        text += [ids.get(token, -1) for token in tokens]
        caption += [number] * len(tokens)
    word, place = np.array(text, np.int64), np.array(caption, np.int64)
    for distance in range(1, WINDOW + 1):
        first, second = word[:-distance], word[distance:]
        near = (place[:-distance] == place[distance:]) & (first >= 0) & (second >= 0)
        for centre, context in ((first[near], second[near]), (second[near], first[near])):
            frequent = context < contexts
            np.add.at(counts, centre[frequent] * contexts + context[frequent], 1.0)


def positive_information(counts: np.ndarray) -> np.ndarray:
    """Counts [N, K] -> max(0, log p(word, context) / (p(word) p(context)^0.75))."""
    of_word = counts.sum(1, keepdims=True) / counts.sum()
    of_context = counts.sum(0, keepdims=True) ** CONTEXT_SMOOTHING
    of_context /= of_context.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(counts / counts.sum() / of_word / of_context)
    positive: np.ndarray = np.maximum(np.nan_to_num(information, nan=0.0, neginf=0.0, posinf=0.0), 0.0)
    return positive


def _fix_signs(columns: np.ndarray) -> np.ndarray:
    """Each column [N, V] so that its largest entry is positive: decompositions leave the sign open."""
    largest = np.abs(columns).argmax(0)
    signs = np.sign(columns[largest, np.arange(columns.shape[1])])
    return columns * np.where(signs == 0, 1.0, signs)
