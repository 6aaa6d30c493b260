"""Metrics of each sample, and scores computed from them, with confidence intervals.

Each interval is a 95 % percentile bootstrap over samples (`objgan.metrics.bootstrap`). A ceiling is the same score of
the true images.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from torch import Tensor

from objgan.metrics.bootstrap import Interval, frechet_interval, interval, mean_interval, ratio_interval, too_dear
from objgan.metrics.distances import frechet_distance, inception_score, kernel_distance
from objgan.metrics.layouts import count_histogram_distance
from objgan.metrics.retrieval import r_precision
from objgan.metrics.soa import object_accuracy_intervals
from pipelines.evaluation.protocols import FROM_CAPTIONS, GENERATED, TRUE_IMAGES, Protocol

_KINDS = ("values", "vectors", "ids", "numbers")


@dataclass(frozen=True)
class SampleMetrics:
    """For each name, the values of its samples, in order.

    values:  float64 [n], a metric of each sample, NaN where it does not apply
    vectors: [n, ...], from which a metric over all samples is computed: features, classes found
    ids, numbers: int64 [n], image and caption number of each sample, for every name in `values` and `vectors`
    """

    values: dict[str, np.ndarray] = field(default_factory=dict)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    ids: dict[str, np.ndarray] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, metrics: Mapping[str, Tensor], keys: Iterable[tuple[int, int]]) -> None:
        """Add values ([B]) and vectors ([B, ...]) of the samples with these (image id, caption number)."""
        places = np.array(list(keys), np.int64).reshape(-1, 2)
        for name, tensor in metrics.items():
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
        """Read the output of `to_bytes`."""
        samples = cls()
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            for key in arrays.files:
                kind, name = key.split(":", 1)
                getattr(samples, kind)[name] = arrays[key]
        return samples

    @classmethod
    def join(cls, parts: Iterable["SampleMetrics"]) -> "SampleMetrics":
        """Concatenate the parts, name by name."""
        lists: dict[str, dict[str, list[np.ndarray]]] = {kind: {} for kind in _KINDS}
        for part in parts:
            for kind, named in lists.items():
                for name, array in getattr(part, kind).items():
                    named.setdefault(name, []).append(array)
        joined = {kind: {name: np.concatenate(rows) for name, rows in named.items()} for kind, named in lists.items()}
        return cls(**joined)

    def table(self) -> pa.Table:
        """One row for each value: metric, image id, number of the caption, value."""
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
    """A metric over samples, their number, its 95 % interval (None: not resampled), and its ceiling, if any."""

    value: float
    count: int
    interval: tuple[float, float] | None = None
    ceiling: float | None = None


def score(
    samples: SampleMetrics, protocol: Protocol, seed: int, resample: bool = True
) -> tuple[dict[str, Score], dict[str, str]]:
    """All scores by name, and the skipped ones with the reason. Adds R-precision of each sample to `samples.values`.

    resample: with intervals of Fréchet distances, which take seconds
    """
    scorer = _Scorer(samples, protocol, seed, resample)
    scores = {name: entry for name, entry in scorer.all() if entry.count}
    return {name: _with_ceiling(name, entry, scores) for name, entry in sorted(scores.items())}, scorer.skipped


def text_table(scores: Mapping[str, Score], skipped: Mapping[str, str]) -> str:
    """One line for each score: name, value, interval, number of samples, ceiling."""
    width = max([40, *(len(name) for name in scores)])
    lines = [f"{name:<{width}} {_numbers(entry)}" for name, entry in scores.items()]
    return "\n".join(lines + [f"{name:<{width}}   skipped  {reason}" for name, reason in skipped.items()])


def _numbers(entry: Score) -> str:
    bounds = "" if entry.interval is None else f"[{entry.interval[0]:.4f}, {entry.interval[1]:.4f}]"
    ceiling = "" if entry.ceiling is None else f"  true images {entry.ceiling:.4f}"
    return f"{entry.value:>9.4f} {bounds:<22} n={entry.count}{ceiling}"


def _with_ceiling(name: str, entry: Score, scores: Mapping[str, Score]) -> Score:
    """Accuracy from captions alone covers only what the caption states, and so does its ceiling."""
    row, _, metric = name.partition("/")
    if row not in GENERATED:
        return entry
    ceiling = scores.get(f"{TRUE_IMAGES}/{metric}")
    if row == FROM_CAPTIONS:
        ceiling = scores.get(f"{TRUE_IMAGES}/stated_{metric}", ceiling)
    return entry if ceiling is None else replace(entry, ceiling=ceiling.value)


class _Scorer:
    """Computes all scores; its methods take and return names without row and protocol."""

    def __init__(self, samples: SampleMetrics, protocol: Protocol, seed: int, resample: bool) -> None:
        self._samples, self._protocol, self._seed, self._resample = samples, protocol, seed, resample
        self.skipped: dict[str, str] = {}

    def all(self) -> Iterator[tuple[str, Score]]:
        """Name and score of each metric."""
        self._retrieve()
        for name, values in self._samples.values.items():
            yield name, _from(mean_interval(values, seed=self._seed))
        for row in (*GENERATED, TRUE_IMAGES):
            for scores in (self._encoder_distance(row), self._object_accuracy(row), self._fidelity(row)):
                yield from ((self._name(row, metric), entry) for metric, entry in scores.items())
        yield from self._counts()
        yield from self._prompts()

    def _retrieve(self) -> None:
        """Add R-precision of each sample to the samples' values."""
        samples, captions = self._samples, self._name(TRUE_IMAGES, "caption_vectors")
        if captions not in samples.vectors:
            return
        vectors, ids = samples.vectors[captions], samples.ids[captions]
        images, pool = len(np.unique(ids)), self._protocol.pool
        if images < pool:
            self.skipped["r_precision"] = f"a pool of {pool} captions needs {pool} images; there are {images}"
            return
        # Captions of the same words have the same vector and cannot be distinguished.
        _, wordings = np.unique(samples.vectors[self._name(TRUE_IMAGES, "words")], axis=0, return_inverse=True)
        for row in (*GENERATED, TRUE_IMAGES):
            ours = self._get(row, "image_vectors")
            if ours is not None:
                name = self._name(row, "r_precision")
                samples.values[name] = r_precision(ours, vectors, ids, wordings, pool, self._seed)
                samples.ids[name], samples.numbers[name] = ids, samples.numbers[captions]

    def _encoder_distance(self, row: str) -> dict[str, Score]:
        ours, true = self._get(row, "image_vectors"), self._true("image_vectors")
        if ours is None or true is None or min(len(ours), len(true)) < 2:
            return {}
        if row == TRUE_IMAGES:
            return {"fd_encoder": Score(frechet_distance(true, true), len(true))}
        return {"fd_encoder": self._frechet(ours, true)}

    def _frechet(self, ours: np.ndarray, true: np.ndarray) -> Score:
        if not self._resample or too_dear(ours.shape[1]):
            return Score(frechet_distance(ours, true), len(ours))
        return _from(frechet_interval(ours, true, seed=self._seed))

    def _object_accuracy(self, row: str) -> dict[str, Score]:
        """SOA by the judge of objects and by the detector."""
        scores: dict[str, Score] = {}
        for ours, true, end in (("found", "named", ""), ("detected", "named_detectable", "_detector")):
            found, named = self._get(row, ours), self._get(TRUE_IMAGES, true)
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

    def _prompts(self) -> Iterator[tuple[str, Score]]:
        objects = self._samples.vectors.get("from_prompts/objects")
        if objects is not None:
            right, drawn, stated = objects.T
            yield "from_prompts/precision", _from(ratio_interval(right, drawn, seed=self._seed))
            yield "from_prompts/recall", _from(ratio_interval(right, stated, seed=self._seed))

    def _count_interval(self, ours: np.ndarray, true: np.ndarray) -> Interval:
        """Shifted so that the resamples' mean is the value: repeated rows of a resample increase any distance."""
        drawn: list[float] = []

        def distance(a: np.ndarray, b: np.ndarray) -> float:
            drawn.append(count_histogram_distance(a, b))
            return drawn[-1]

        raw = interval(distance, ours, true, resamples=200, seed=self._seed)
        shift = raw.value - float(np.nanmean(drawn[:200]))
        return replace(raw, low=max(0.0, raw.low + shift), high=raw.high + shift)

    def _name(self, row: str, metric: str) -> str:
        return f"{row}/{metric}_{self._protocol.name}"

    def _get(self, row: str, metric: str) -> np.ndarray | None:
        return self._samples.vectors.get(self._name(row, metric))

    def _true(self, metric: str) -> np.ndarray | None:
        """Vectors of the true images, each image once."""
        vectors = self._get(TRUE_IMAGES, metric)
        return None if vectors is None else vectors[self._samples.numbers[self._name(TRUE_IMAGES, metric)] == 0]


def _from(source: Interval) -> Score:
    bounds = (source.low, source.high)
    return Score(source.value, source.samples, None if np.isnan(bounds).any() else bounds)
