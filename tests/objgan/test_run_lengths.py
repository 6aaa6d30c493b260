"""Run lengths: what is decoded fills its picture and agrees with pycocotools; the rest is refused before it is read."""

import resource
import subprocess
import sys

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from objgan.run_lengths import MOST_RUNS, BadMask, decode, encode, read_runs

RUN_TEXT = st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=40)


def _mask(seed: int, height: int, width: int, share: float) -> np.ndarray:
    return (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)


def _reference(counts: str, height: int, width: int) -> np.ndarray:
    decoded: np.ndarray = pycocotools.mask.decode({"size": [height, width], "counts": counts.encode()})
    return decoded


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.integers(1, 90), st.floats(0, 1))
def test_masks_are_written_and_read_as_pycocotools_does(seed: int, height: int, width: int, share: float) -> None:
    mask = _mask(seed, height, width, share)
    counts = encode(mask)
    assert counts == pycocotools.mask.encode(np.asfortranarray(mask))["counts"].decode()
    found = decode(counts, height, width)
    assert found.dtype == np.uint8 and found.tolist() == mask.tolist() == _reference(counts, height, width).tolist()
    assert decode(counts.encode(), height, width).tolist() == mask.tolist()
    runs = read_runs(counts, height, width).tolist()
    assert decode(runs, height, width).tolist() == mask.tolist()
    assert decode([float(run) for run in runs], height, width).tolist() == mask.tolist()


@settings(deadline=None, max_examples=1000)
@given(RUN_TEXT | st.text(max_size=12) | st.lists(st.integers(-5, 700), max_size=12), st.integers(1, 30))
@example("1", 30)
@example("", 1)
@example([], 1)
@example("P" + "`" * 12, 3)
def test_run_lengths_that_are_decoded_fill_the_picture_and_nothing_else_is(counts: str | list[int], side: int) -> None:
    try:
        mask = decode(counts, side, side)
    except BadMask:
        if isinstance(counts, list):
            assert min(counts, default=0) < 0 or sum(counts) != side * side
        return
    runs = counts if isinstance(counts, list) else read_runs(counts, side, side).tolist()
    assert min(runs) >= 0 and sum(runs) == side * side
    assert mask.T.reshape(-1).tolist() == [n % 2 for n, run in enumerate(runs) for _ in range(run)]
    if isinstance(counts, str):
        assert mask.tolist() == _reference(counts, side, side).tolist()


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1), st.integers(2, 90), st.integers(2, 90), st.floats(0.05, 0.95), st.data())
def test_text_that_is_cut_or_goes_on_is_refused(seed: int, height: int, width: int, share: float, data) -> None:
    counts = encode(_mask(seed, height, width, share))
    for broken in (counts[: data.draw(st.integers(0, len(counts) - 1))], counts + "1", counts + "o"):
        with pytest.raises(BadMask):
            decode(broken, height, width)
    with pytest.raises(BadMask, match="do not fill the picture"):
        decode(counts, height + 1, width)


@pytest.mark.parametrize("counts", ["", "é", "\x00", "\ud800", "o" * 40, "P", "0" * 100 + "o", None, 7, {}, b"\xff"])
def test_what_is_no_run_length_is_refused(counts: object) -> None:
    with pytest.raises(BadMask):
        decode(counts, 16, 16)


@pytest.mark.parametrize("run", [True, None, "256", 255.5, float("nan"), float("inf"), [256], 2**70])
def test_a_run_that_is_no_whole_number_is_refused(run: object) -> None:
    with pytest.raises(BadMask, match="not all whole numbers"):
        decode([run], 16, 16)


@pytest.mark.parametrize(
    ("height", "width"), [(2_000_000_000, 2_000_000_000), (40_000, 40_000), (1, 10**8), (0, 5), (-4, -4)]
)
def test_sizes_that_no_picture_has_are_refused(height: int, width: int) -> None:
    for counts in ([max(height * width, 0)], "0", "1"):
        with pytest.raises(BadMask, match="too large"):
            decode(counts, height, width)


def test_more_runs_than_any_mask_has_are_refused() -> None:
    for counts in ([0] * (MOST_RUNS + 1), "0" * (MOST_RUNS + 1)):
        with pytest.raises(BadMask, match="more run lengths"):
            decode(counts, 10_000, 10_000)


def test_nothing_is_allocated_for_run_lengths_that_are_refused() -> None:
    """In a process whose memory the declared picture does not fit."""
    program = f"""
import resource
from objgan.run_lengths import BadMask, decode
resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000, {resource.RLIM_INFINITY}))
for counts in ("1", [2**40], [5, 2**62, 2**62, 2**62, 2**62], "o" * 7 + "1"):
    for height, width in ((2_000_000_000, 2_000_000_000), (40_000, 40_000), (13_377, 13_377)):
        try:
            decode(counts, height, width)
        except BadMask:
            continue
        raise SystemExit(1)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
