"""Per-sample measurements, and scores computed from them, with confidence intervals.

Each interval is a 95 % percentile bootstrap over samples (`objgan.metrics.bootstrap`). A ceiling is what the true
images get by the same measure.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from torch import Tensor

from objgan.metrics.bootstrap import Interval, frechet_interval, interval, mean_interval, too_dear
from objgan.metrics.distances import frechet_distance, inception_score, kernel_distance
from objgan.metrics.layouts import count_histogram_distance
from objgan.metrics.retrieval import r_precision
from objgan.metrics.soa import object_accuracy_intervals
from pipelines.evaluation.protocols import FROM_CAPTIONS, GENERATED, TRUE_IMAGES, Protocol

_KINDS = ("values", "vectors", "ids", "numbers")


@dataclass(frozen=True)
class SampleMetrics:
    """Of the samples that each name was measured on, in order.

    values:  float64 [n], one figure a sample, NaN where the measure does not apply
    vectors: [n, ...], what a figure over all samples is made of: features, classes found
    ids, numbers: int64 [n], the samples' images and their captions' numbers, for every name of both
    """

    values: dict[str, np.ndarray] = field(default_factory=dict)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    ids: dict[str, np.ndarray] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, found: Mapping[str, Tensor], keys: Iterable[tuple[int, int]]) -> None:
        """Figures ([B]) and vectors ([B, ...]) of the samples with these (image id, caption number)."""
        places = np.array(list(keys), np.int64).reshape(-1, 2)
        for name, tensor in found.items():
            array = tensor.detach().cpu().numpy()
            if array.ndim == 1:
                self.values[name] = array.astype(np.float64)
            else:
                self.vectors[name] = array
            self.ids[name], self.numbers[name] = places[:, 0], places[:, 1]

    def to_bytes(self) -> bytes:
        """As an uncompressed .npz."""
        file = io.BytesIO()
        np.savez(file, **{f"{kind}:{name}": array for kind in _KINDS for name, array in getattr(self, kind).items()})
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "SampleMetrics":
        """What `to_bytes` made."""
        found = cls()
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            for key in arrays.files:
                kind, name = key.split(":", 1)
                getattr(found, kind)[name] = arrays[key]
        return found

    @classmethod
    def join(cls, parts: Iterable["SampleMetrics"]) -> "SampleMetrics":
        """One after the other, name by name."""
        lists: dict[str, dict[str, list[np.ndarray]]] = {kind: {} for kind in _KINDS}
        for part in parts:
            for kind, named in lists.items():
                for name, array in getattr(part, kind).items():
                    named.setdefault(name, []).append(array)
        joined = {kind: {name: np.concatenate(rows) for name, rows in named.items()} for kind, named in lists.items()}
        return cls(**joined)

    def table(self) -> pa.Table:
        """One row a figure: measure, image id, number of the caption, value."""
        names = sorted(self.values)
        lengths = [len(self.values[name]) for name in names]
        columns = {
            "measure": pa.array(np.repeat(np.array(names, object), lengths), pa.string()),
            "image_id": _flat([self.ids[name] for name in names], np.int64),
            "caption": _flat([self.numbers[name] for name in names], np.int64),
            "value": _flat([self.values[name] for name in names], np.float64),
        }
        order = [("measure", "ascending"), ("image_id", "ascending"), ("caption", "ascending")]
        return pa.table(columns).sort_by(order)


def _flat(arrays: list[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.empty(0, kind), *arrays])


@dataclass(frozen=True)
class Score:
    """A figure, the number of samples behind it, its 95 % interval (None: not resampled), and its ceiling, if any."""

    value: float
    count: int
    interval: tuple[float, float] | None = None
    ceiling: float | None = None


def score(found: SampleMetrics, protocol: Protocol, seed: int) -> tuple[dict[str, Score], dict[str, str]]:
    """All scores by name, and why some could not be had. Adds R-precision's figures to `found.values`."""
    scorer = _Scorer(found, protocol, seed)
    scores = {name: one for name, one in scorer.all() if one.count}
    return {name: _with_ceiling(name, one, scores) for name, one in sorted(scores.items())}, scorer.skipped


def text_table(scores: Mapping[str, Score], skipped: Mapping[str, str]) -> str:
    """Lines for people: name, value, interval, number of samples, ceiling."""
    width = max([40, *(len(name) for name in scores)])
    lines = [f"{name:<{width}} {_numbers(one)}" for name, one in scores.items()]
    return "\n".join(lines + [f"{name:<{width}}   skipped  {why}" for name, why in skipped.items()])


def _numbers(one: Score) -> str:
    interval_ = "" if one.interval is None else f"[{one.interval[0]:.4f}, {one.interval[1]:.4f}]"
    ceiling = "" if one.ceiling is None else f"  true images {one.ceiling:.4f}"
    return f"{one.value:>9.4f} {interval_:<22} n={one.count}{ceiling}"


def _with_ceiling(name: str, one: Score, scores: Mapping[str, Score]) -> Score:
    """From captions alone, accuracy is of what the caption states: so is its ceiling."""
    row, _, measure = name.partition("/")
    if row not in GENERATED:
        return one
    ceiling = scores.get(f"{TRUE_IMAGES}/{measure}")
    if row == FROM_CAPTIONS:
        ceiling = scores.get(f"{TRUE_IMAGES}/stated_{measure}", ceiling)
    return one if ceiling is None else replace(one, ceiling=ceiling.value)


class _Scorer:
    """Goes through everything that was found, once; names without their row and protocol."""

    def __init__(self, found: SampleMetrics, protocol: Protocol, seed: int) -> None:
        self._found, self._protocol, self._seed = found, protocol, seed
        self.skipped: dict[str, str] = {}

    def all(self) -> Iterator[tuple[str, Score]]:
        """Name and score of everything."""
        self._retrieve()
        for name, values in self._found.values.items():
            yield name, _from(mean_interval(values, seed=self._seed))
        for row in (*GENERATED, TRUE_IMAGES):
            for scores in (self._encoder_distance(row), self._object_accuracy(row), self._fidelity(row)):
                yield from ((self._name(row, measure), one) for measure, one in scores.items())
        yield from self._counts()

    def _retrieve(self) -> None:
        """R-precision of each sample, a figure like others from here on."""
        captions = self._name(TRUE_IMAGES, "caption_vectors")
        if captions not in self._found.vectors:
            return
        read, ids = self._found.vectors[captions], self._found.ids[captions]
        images = len(np.unique(ids))
        if images < self._protocol.pool:
            self.skipped["r_precision"] = f"a pool of {self._protocol.pool} needs as many images, there are {images}"
            return
        # Captions of the same words have the same vector, and nobody could tell which of them is meant.
        _, wordings = np.unique(self._found.vectors[self._name(TRUE_IMAGES, "words")], axis=0, return_inverse=True)
        for row in (*GENERATED, TRUE_IMAGES):
            seen = self._get(row, "image_vectors")
            if seen is not None:
                name = self._name(row, "r_precision")
                self._found.values[name] = r_precision(seen, read, ids, wordings, self._protocol.pool, self._seed)
                self._found.ids[name], self._found.numbers[name] = ids, self._found.numbers[captions]

    def _encoder_distance(self, row: str) -> dict[str, Score]:
        ours, true = self._get(row, "image_vectors"), self._true("image_vectors")
        if ours is None or true is None or min(len(ours), len(true)) < 2:
            return {}
        if row == TRUE_IMAGES:
            return {"fd_encoder": Score(frechet_distance(true, true), len(true))}
        return {"fd_encoder": self._frechet(ours, true)}

    def _frechet(self, ours: np.ndarray, true: np.ndarray) -> Score:
        if too_dear(ours.shape[1]):
            return Score(frechet_distance(ours, true), len(ours))
        return _from(frechet_interval(ours, true, seed=self._seed))

    def _object_accuracy(self, row: str) -> dict[str, Score]:
        """SOA by the judge of objects and by the detector."""
        scores: dict[str, Score] = {}
        for seen, asked, end in (("found", "named", ""), ("detected", "named_detectable", "_detector")):
            found, named = self._get(row, seen), self._get(TRUE_IMAGES, asked)
            if found is not None and named is not None:
                by_class, by_image = object_accuracy_intervals(found, named, seed=self._seed)
                scores |= {f"soa_c{end}": _from(by_class), f"soa_i{end}": _from(by_image)}
        return scores

    def _fidelity(self, row: str) -> dict[str, Score]:
        ours, logits, true = self._get(row, "inception"), self._get(row, "inception_logits"), self._true("inception")
        if ours is None or logits is None:
            return {}
        scores = {"is": Score(inception_score(logits).mean, len(logits))}
        if true is not None and row != TRUE_IMAGES and min(len(ours), len(true)) >= 2:
            scores["fid"] = self._frechet(ours, true)
            scores["kid"] = Score(kernel_distance(ours, true).mean, len(ours))
        return scores

    def _counts(self) -> Iterator[tuple[str, Score]]:
        ours, true = self._get(FROM_CAPTIONS, "class_counts"), self._get(TRUE_IMAGES, "class_counts")
        if ours is not None and true is not None:
            yield self._name(FROM_CAPTIONS, "count_histogram_distance"), _from(self._count_interval(ours, true))

    def _count_interval(self, ours: np.ndarray, true: np.ndarray) -> Interval:
        """Moved so that the resamples' mean is the figure: a resample repeats rows, which adds to any distance."""
        drawn: list[float] = []

        def distance(a: np.ndarray, b: np.ndarray) -> float:
            drawn.append(count_histogram_distance(a, b))
            return drawn[-1]

        found = interval(distance, ours, true, resamples=200, seed=self._seed)
        shift = found.value - float(np.nanmean(drawn[:200]))
        return replace(found, low=max(0.0, found.low + shift), high=found.high + shift)

    def _name(self, row: str, measure: str) -> str:
        return f"{row}/{measure}_{self._protocol.name}"

    def _get(self, row: str, measure: str) -> np.ndarray | None:
        return self._found.vectors.get(self._name(row, measure))

    def _true(self, measure: str) -> np.ndarray | None:
        """Of the true images, each once."""
        vectors = self._get(TRUE_IMAGES, measure)
        return None if vectors is None else vectors[self._found.numbers[self._name(TRUE_IMAGES, measure)] == 0]


def _from(found: Interval) -> Score:
    bounds = (found.low, found.high)
    return Score(found.value, found.samples, None if np.isnan(bounds).any() else bounds)
