"""Findings: what was measured on some samples, by name, as plain arrays that can travel between processes."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from torch import Tensor

_KINDS = ("values", "vectors", "ids", "numbers")


@dataclass(frozen=True)
class Findings:
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
    def from_bytes(cls, data: bytes) -> "Findings":
        """What `to_bytes` made."""
        found = cls()
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            for key in arrays.files:
                kind, name = key.split(":", 1)
                getattr(found, kind)[name] = arrays[key]
        return found

    @classmethod
    def join(cls, parts: Iterable["Findings"]) -> "Findings":
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
