"""The folds of the mask benchmark leave nothing out and let nothing through; its table says what was measured."""

from tests.benchmarks.learn import real_masks
from tests.benchmarks.learn.image_folds import FOLDS, SubsetReader, split_of


class _Reader:
    config, max_words, flips = None, 5, True

    def __init__(self, name: str) -> None:
        self.name = name

    def sample(self, *given) -> tuple:
        return (self.name, *given)


def _row(network: list[float | None]) -> dict:
    others = {"ellipse": [0.5] * len(network), "class_mean": [0.4] * len(network)}
    return {"iou": {"network": network, **others}, "seconds": 30.0, "step": 2, "seed": 0}


def test_every_image_is_tested_in_one_fold_and_never_trained_on_there() -> None:
    splits = [[split_of(image, fold) for fold in range(FOLDS)] for image in range(5000)]
    assert all(row.count("test") == 1 for row in splits)
    assert all(sum(row[fold] == "test" for row in splits) in range(900, 1101) for fold in range(FOLDS))
    assert {len({name for name in row if name != "test"}) for row in splits} == {1}
    assert sum("validation" in row for row in splits) in range(550, 700)


def test_a_subset_reads_from_the_reader_that_has_the_sample() -> None:
    subset = SubsetReader([_Reader("a"), _Reader("b")], [(1, 7), (0, 3)])
    assert len(subset) == 2
    assert subset.sample(0, 1, 2, True) == ("b", 7, 1, 2, True)
    assert subset.sample(1, 1, 2) == ("a", 3, 1, 2, False)


def test_table_joins_folds_and_says_how_many_there_are() -> None:
    text = real_masks.table({"real_fold0": _row([0.6, None]), "real_fold3": _row([0.8])})
    assert "(2 of 5 measured)" in text
    assert "| 2 | shape generator | 0.700 [" in text
    assert "| +0.200 [+0.100, +0.300] |" in text
    assert "drawn sample" not in text
