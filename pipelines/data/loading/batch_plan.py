"""The plan of a run: which sample is at which place, computed place by place, without a list in memory.

Place p of a run lies in epoch p // length. The order of an epoch is a keyed permutation: a Feistel network over the
next power of two, followed along its cycle until it is back inside (Black and Rogaway 2002, "Ciphers with Arbitrary
Finite Domains"). So a run resumes anywhere at once, and a plan needs no more memory for a billion rows than for ten.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from objgan.errors import InputError

_ROUNDS = 6


def epoch_order(seed: int, epoch: int, length: int, places: np.ndarray, stream: tuple[int, ...] = ()) -> np.ndarray:
    """int64 [n]: the samples at `places` (int64 [n], 0 to length - 1) of an epoch's order; all places: all samples.

    stream: numbers that select another order of the same epoch; the last is not 0
    """
    # The tag separates this stream from the samples' own (seed, epoch, image id).
    keys = np.random.SeedSequence((seed, epoch, length, 0x0BDE, *stream)).generate_state(_ROUNDS, np.uint64)
    bits = max(2, (length - 1).bit_length())
    order = _encipher(places.astype(np.uint64), keys, bits)
    while (outside := order >= length).any():
        order[outside] = _encipher(order[outside], keys, bits)
    return order.astype(np.int64)


def _encipher(values: np.ndarray, keys: np.ndarray, bits: int) -> np.ndarray:
    """uint64 [n] -> uint64 [n]: a permutation of the numbers of `bits` bits."""
    low, high = bits // 2, bits - bits // 2
    left, right = values >> np.uint64(low), values & np.uint64((1 << low) - 1)
    for key in keys:
        # The halves differ by at most one bit and are swapped: after an even number of rounds each has its own size.
        left, right = right, left ^ (_mix(right ^ key) & np.uint64((1 << high) - 1))
        low, high = high, low
    joined: np.ndarray = (left << np.uint64(low)) | right
    return joined


def _mix(values: np.ndarray) -> np.ndarray:
    """uint64 [n] -> uint64 [n]: the finaliser of splitmix64 (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed


class ShardOrder:
    """The order of an epoch that reads the shards a window at a time, for data that are fetched when needed.

    The shards are permuted and divided into windows; the samples of each window are permuted.
    As without windows, an order depends only on (seed, epoch), and each place is computed by itself.
    """

    def __init__(self, sizes: np.ndarray) -> None:
        """`sizes`: int64 [S], samples of each shard; samples are numbered through all shards."""
        self.sizes = sizes
        self._first = np.cumsum(sizes) - sizes
        # A step may contain two epochs; the plan of one has a number per shard.
        self._plan = lru_cache(4)(self._make_plan)

    def places(self, seed: int, epoch: int, window: int, places: np.ndarray) -> np.ndarray:
        """int64 [n]: the samples at `places` (int64 [n]) of the epoch's order in windows of `window` shards."""
        shards, starts = self._plan(seed, epoch)
        # starts[k]: the place at which the k-th shard would begin if its window were not shuffled.
        bounds = starts[np.minimum(np.arange(0, len(shards) + window, window), len(shards))]
        windows = np.searchsorted(bounds, places, side="right") - 1
        samples = np.empty(len(places), np.int64)
        for number in np.unique(windows).tolist():
            inside, first, end = windows == number, bounds[number], bounds[number + 1]
            shuffled = first + epoch_order(seed, epoch, int(end - first), places[inside] - first, (2, number + 1))
            at = np.searchsorted(starts, shuffled, side="right") - 1
            samples[inside] = self._first[shards[at]] + shuffled - starts[at]
        return samples

    def _make_plan(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The shards in their order int64 [S]; the number of samples before each, and the total, int64 [S + 1]."""
        shards = epoch_order(seed, epoch, len(self.sizes), np.arange(len(self.sizes)), (1,))
        return shards, np.concatenate([[0], np.cumsum(self.sizes[shards])])


def epoch_position(step: int, batch_size: int, length: int) -> tuple[int, int]:
    """(epoch, place in its order) of the first sample of a step, at which a run of `step` steps resumes."""
    return divmod(step * batch_size, length)


@dataclass(frozen=True)
class BatchPlan:
    """Steps `start` to `stop` - 1 of an endless run over the data, as worker `rank` of `world` sees them.

    Step k takes places k * batch_size to (k + 1) * batch_size - 1 of all epochs' orders, one after the other; no
    sample is dropped. Its batch is divided into `groups` groups of neighbours, and each worker has a contiguous range
    of whole groups: the content of a group does not depend on the number of workers.

    window: shards whose samples are shuffled together; None: all samples

    Raises:
        InputError: batch_size is not a multiple of groups, or there are more workers than groups.
    """

    batch_size: int
    seed: int
    start: int
    stop: int
    rank: int = 0
    world: int = 1
    groups: int = 1
    window: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size % self.groups:
            raise InputError(f"training: {self.groups} groups do not divide a batch of {self.batch_size} samples")
        if self.world > self.groups:
            raise InputError(
                f"training: {self.world} workers, but a batch has {self.groups} group(s), which are not divided: use "
                f"fewer workers, or training.group of at most {self.batch_size // self.world}"
            )

    @property
    def own_groups(self) -> range:
        """The groups of this worker, at least one."""
        return range(self.groups * self.rank // self.world, self.groups * (self.rank + 1) // self.world)

    def places(self, step: int, length: int, shards: ShardOrder | None = None) -> dict[int, list[tuple[int, int]]]:
        """group -> (epoch, index) of its samples, for this worker's groups of a step's batch.

        shards: of the `length` samples; a plan with a window needs to know them
        """
        size, own = self.batch_size // self.groups, self.own_groups
        first = step * self.batch_size
        epochs, places = np.divmod(np.arange(first + own.start * size, first + own.stop * size), length)
        samples: list[tuple[int, int]] = []
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            order = self._order(epoch, length, places[epochs == epoch], shards)
            samples += [(epoch, index) for index in order.tolist()]
        return {group: samples[at * size : (at + 1) * size] for at, group in enumerate(own)}

    def _order(self, epoch: int, length: int, places: np.ndarray, shards: ShardOrder | None) -> np.ndarray:
        if self.window is None:
            return epoch_order(self.seed, epoch, length, places)
        if shards is None:
            raise ValueError("a plan in windows needs the shards")
        return shards.places(self.seed, epoch, self.window, places)
