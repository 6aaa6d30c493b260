"""Vocabulary coverage of the held-out captions, and the likely cause if it is low."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from objgan.vocabulary import UNK, Vocabulary

LITTLE = 0.5
# Scripts without spaces between words, and the language whose tokenizer splits them.
_SCRIPTS = {
    "ja": "\u3041-\u30ff",
    "zh": "\u3400-\u4dbf\u4e00-\u9fff",
    "th": "\u0e00-\u0e7f",
    "lo": "\u0e80-\u0eff",
    "my": "\u1000-\u109f",
    "km": "\u1780-\u17ff",
    "bo": "\u0f00-\u0fff",
}


@dataclass(frozen=True)
class HeldOut:
    """Number of words in the held-out captions, and counts of those that the vocabulary lacks."""

    words: int
    unknown: Counter[str]

    @property
    def little(self) -> bool:
        """Whether under half of them are known."""
        return self.unknown.total() > (1 - LITTLE) * self.words


def held_out(tables: Iterable[pa.Table], vocabulary: Vocabulary) -> HeldOut:
    """Count over shards of the held-out splits; `tables` need the column `tokens`."""
    known, words, unknown = pa.array(vocabulary.words[UNK + 1 :], pa.string()), 0, Counter[str]()
    for table in tables:
        texts = pc.list_flatten(table["tokens"])
        tokens = pc.list_flatten(pc.split_pattern(texts.filter(pc.not_equal(texts, "")), " "))
        words += len(tokens)
        unknown.update(tokens.filter(pc.invert(pc.is_in(tokens, value_set=known))).to_pylist())
    return HeldOut(words, unknown)


def reason(captions: HeldOut, training: Iterable[str], language: str, min_count: int) -> str:
    """The likely cause of many unknown words in the held-out captions.

    training: words of the training captions, with repetitions
    """
    suggested = unspaced(captions.unknown)
    if suggested is not None and suggested != language:
        return f"the captions are in a script without spaces between words; set data.language={suggested}"
    total, seen = captions.unknown.total(), set(training)
    rare = sum(number for word, number in captions.unknown.items() if word in seen)
    if 2 * rare > total:
        return f"data.min_count={min_count} excludes words that occur in the training captions; lower it"
    return (
        f"{total - rare} of the unknown words never occur in the training captions, which are too few or in another "
        f"language; the tokenizer is that of data.language={language}"
    )


def unspaced(words: Mapping[str, int]) -> str | None:
    """The language for whose tokenizer most words are written, in a script without spaces; None: other scripts."""
    total = sum(words.values())
    for language, letters in _SCRIPTS.items():
        of_script = re.compile(f"[{letters}]")
        # Many Japanese words have only Chinese characters.
        share = 0.2 if language == "ja" else 0.5
        if sum(number for word, number in words.items() if of_script.search(word)) > share * total:
            return language
    return None


def facts(captions: HeldOut, why: str) -> dict[str, Any]:
    """For the manifest."""
    return {"words": captions.words, "known": captions.words - captions.unknown.total(), "reason": why}
