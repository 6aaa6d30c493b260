"""Tokenizer, ids, vectors, and the files they are kept in."""

import importlib.util
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from objgan.config import build_config
from objgan.errors import InputError
from objgan.languages import check_language
from objgan.vocabulary import PAD, UNK, Vocabulary, fit_vectors, known_words, normalise, project_vectors, tokenize

CAPTIONS = [
    "a red kite above the sea",
    "a red kite above a boat on the sea",
    "a white sheep on the grass",
    "two white sheep eat grass",
    "a boat on the sea",
    "sheep stand on grass",
]
TOKENS = [caption.split() for caption in CAPTIONS]


def build(token_lists: list[list[str]], min_count: int, channels: int) -> Vocabulary:
    words = known_words(token_lists, min_count)
    return Vocabulary(words, fit_vectors(token_lists, words, channels))


def test_tokens_are_lower_case_words_without_blanks_or_punctuation() -> None:
    assert tokenize('  A man\'s DOG doesn\'t like "T-shirts" ...\n') == [
        "a", "man", "'s", "dog", "does", "n't", "like", "t", "shirts",
    ]  # fmt: skip
    assert tokenize(" \n ?! -- ") == []
    assert tokenize("un café à Zürich") == ["un", "café", "à", "zürich"]


def test_composed_and_decomposed_letters_are_one_word() -> None:
    assert tokenize("cafe\u0301") == tokenize("caf\u00e9")


def test_tokens_survive_being_joined_by_a_blank() -> None:
    tokens = tokenize("A\u00a0kite,\tat 5 p.m.\u3000in the U.S.A. & 3.5 km/h")
    assert " ".join(tokens).split(" ") == tokens


def test_words_come_by_count_then_by_letter_and_rare_ones_are_unknown() -> None:
    vocabulary = build([["b", "a", "a"], ["c", "b", "a"], ["d"]], min_count=2, channels=4)
    assert vocabulary.words == ("<pad>", "<unk>", "a", "b")
    assert vocabulary.encode_tokens(["a", "d", "b"]).tolist() == [2, UNK, 3]


def test_special_names_in_a_caption_are_unknown_words() -> None:
    vocabulary = build(TOKENS, 1, 4)
    assert vocabulary.encode_tokens(["<pad>", "<unk>"]).tolist() == [UNK, UNK]
    assert PAD not in vocabulary.encode("<pad> pad kite")


def test_decode_skips_padding() -> None:
    vocabulary = build(TOKENS, 1, 4)
    ids = [*vocabulary.encode("A red zeppelin!"), PAD, PAD]
    assert vocabulary.decode(ids) == "a red <unk>"


def test_an_empty_caption_has_no_words() -> None:
    ids = build(TOKENS, 1, 4).encode(" . ")
    assert ids.shape == (0,) and ids.dtype == np.int64


def test_words_of_one_context_are_closer_than_words_of_different_ones() -> None:
    vocabulary = build(TOKENS * 3, 1, 6)
    sheep, grass, kite = (vocabulary.vectors[vocabulary.ids[word]] for word in ("sheep", "grass", "kite"))

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine(sheep, grass) > cosine(sheep, kite) + 0.2


def test_full_rank_vectors_reproduce_the_information_matrix() -> None:
    """Two words that only ever stand together: counts [[0, n], [n, 0]], information log 2 each (K = 2, p = 1/2)."""
    vectors = fit_vectors([["a", "b"]] * 4, ("<pad>", "<unk>", "a", "b"), 2)
    gram = vectors[2:] @ vectors[2:].T
    # U S U^T of [[0, l], [l, 0]]: singular values l, l; so U sqrt(S) has orthogonal rows of one length, scaled to 1.
    assert np.allclose(gram, np.eye(2) * gram[0, 0], atol=1e-3)
    assert np.square(vectors[2:]).mean() == pytest.approx(1.0, abs=1e-3)


def test_vectors_do_not_depend_on_the_order_of_captions_and_special_words_are_zero() -> None:
    vocabulary = build(TOKENS, 1, 5)
    again = build(TOKENS[::-1], 1, 5)
    assert vocabulary.words == again.words
    assert np.array_equal(vocabulary.vectors, again.vectors)
    assert not vocabulary.vectors[[PAD, UNK]].any()


def test_more_channels_than_words_are_zero() -> None:
    vectors = build([["a", "b"]], 1, 9).vectors
    assert vectors.shape == (4, 9) and np.isfinite(vectors).all() and not vectors[:, 3:].any()


def test_captions_of_one_word_have_no_neighbours_and_zero_vectors() -> None:
    assert not build([["a"], ["b"]], 1, 4).vectors.any()
    assert build([], 1, 4).words == ("<pad>", "<unk>")


def test_label_vectors_average_known_words() -> None:
    vectors = np.array([[0, 0], [0, 0], [1, 0], [0, 1]], np.float32)
    vocabulary = Vocabulary(("<pad>", "<unk>", "stop", "sign"), vectors)
    labels = vocabulary.label_vectors(["stop sign", "Stop", "hair drier", "traffic sign"])
    assert labels.tolist() == [[0.5, 0.5], [1, 0], [0, 0], [0, 1]]


def test_projection_keeps_inner_products_where_the_rank_allows() -> None:
    generator = np.random.default_rng(0)
    vectors = (generator.normal(size=(30, 3)) @ generator.normal(size=(3, 12))).astype(np.float32)
    narrow = project_vectors(vectors, 3)
    assert narrow.shape == (30, 3)
    assert np.allclose(narrow @ narrow.T, vectors @ vectors.T, atol=2e-2)
    assert project_vectors(vectors, 12) is vectors
    with pytest.raises(InputError, match=r"images\.word_channels asks for 13"):
        project_vectors(vectors, 13)


def test_projection_commutes_with_label_means() -> None:
    vocabulary = build(TOKENS, 1, 8)
    narrow = vocabulary.projected(4)
    label = narrow.label_vectors(["red kite"])[0]
    assert np.allclose(label, (narrow.vectors[narrow.ids["red"]] + narrow.vectors[narrow.ids["kite"]]) / 2)


def test_save_and_load_give_back_the_same(tmp_path) -> None:
    vocabulary = build([*TOKENS, ["café"]], 1, 5)
    vocabulary.save(tmp_path)
    loaded = Vocabulary.load(tmp_path)
    assert loaded.words == vocabulary.words
    assert np.array_equal(loaded.vectors, vocabulary.vectors)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    loaded.save(tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["vectors.safetensors", "vocabulary.json"]


def test_broken_files_are_named(tmp_path) -> None:
    with pytest.raises(InputError, match="no file"):
        Vocabulary.load(tmp_path)
    build(TOKENS, 1, 5).save(tmp_path)
    (tmp_path / "vectors.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match=r"vectors\.safetensors"):
        Vocabulary.load(tmp_path)
    (tmp_path / "vocabulary.json").write_text('{"format": 99, "words": []}')
    with pytest.raises(InputError, match="format 99"):
        Vocabulary.load(tmp_path)
    (tmp_path / "vocabulary.json").write_text("[]")
    with pytest.raises(InputError, match="no word list"):
        Vocabulary.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("zero\u200bwidth", "zerowidth"),
        ("join\u200d\u2060\ufeffed", "joined"),
        ("so\u00adft", "soft"),
        ("\u202ekite\u202c", "kite"),
        ("k\u034fi\ufe0ft\U000e0101e", "kite"),
        ("\uff4b\uff49\uff54\uff45", "kite"),
        ("\U0001d424\U0001d422\U0001d42d\U0001d41e", "kite"),
        ("\ufb01sh", "fish"),
        ("cafe\u0301", "caf\u00e9"),
        ("it\u2019s it\u00b4s it\u02bcs", "it's it's it's"),
        ("a\u00a0kite\u3000\x00flies\x07\n", "a kite flies"),
        ("kite\ud800", "kite?"),
    ],
)
def test_what_looks_alike_is_one_spelling(text, plain) -> None:
    assert normalise(text) == plain and tokenize(text) == tokenize(plain)


@given(st.text(st.characters()))
def test_normalising_twice_is_normalising_once(text) -> None:
    assert normalise(normalise(text)) == normalise(text)
    normalise(text).encode()


def test_a_caption_of_invisible_characters_has_no_words() -> None:
    assert normalise("\u200b \u00ad\ufeff") == "" and tokenize("\u200b \u00ad") == []


def test_the_tokenizer_is_that_of_the_language(tmp_path) -> None:
    assert tokenize("一只猫坐在草地上") == ["一只猫坐在草地上"]
    assert tokenize("一只猫坐在草地上", "zh") == list("一只猫坐在草地上")
    vocabulary = Vocabulary(("<pad>", "<unk>", "猫"), np.zeros((3, 2), np.float32), "zh")
    vocabulary.save(tmp_path)
    again = Vocabulary.load(tmp_path)
    assert again.language == "zh" and again.encode("一只猫").tolist() == [UNK, UNK, 2]


@pytest.mark.parametrize("language", ["xyz", "", 7, None, ["en"], "../en"])
def test_a_vocabulary_of_an_unknown_language_is_refused(tmp_path, language) -> None:
    build(TOKENS, 1, 4).save(tmp_path)
    content = json.loads((tmp_path / "vocabulary.json").read_text())
    (tmp_path / "vocabulary.json").write_text(json.dumps(content | {"language": language}))
    with pytest.raises(InputError, match="is of the language"):
        Vocabulary.load(tmp_path)


def test_a_language_is_checked_with_the_settings_and_with_its_packages() -> None:
    assert build_config({"data": {"language": "de"}}).data.language == "de"
    with pytest.raises(InputError, match=r"data\.language: none of spaCy's languages: .*, en, .*\(got 'english'\)"):
        build_config({"data": {"language": "english"}})
    check_language("en")
    check_language("fr")
    if importlib.util.find_spec("sudachipy") is None:
        with pytest.raises(InputError, match=r"data\.language: spaCy lacks a package for 'ja' .*sudachipy"):
            check_language("ja")


def test_whitened_vectors_weigh_every_axis_alike() -> None:
    vectors = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32) * [9, 5, 1, 0.1, 0.01, 0]
    vectors[:2] = 0
    white = project_vectors(vectors.astype(np.float32), 6, whiten=True)
    assert white.dtype == np.float32 and not white[:2].any()
    np.testing.assert_allclose(white.T @ white / 40, np.diag([1, 1, 1, 1, 1, 0]), atol=2e-3)
    np.testing.assert_allclose(project_vectors(vectors, 3, whiten=True), white[:, :3], atol=1e-3)
