"""`python -m tests.benchmarks.open_reader FOLDER`: seconds to the first batch of prepared data, and memory, as JSON.

In a process of its own, because what was opened before would count. Bytes are proportional set sizes (PSS): the
process's own memory (`own`), and mapped pages of files (`mapped`), which the system takes back when it needs them.
After the first batch, and after two hundred further ones, when most shards have had their turn (`later_...`).
"""

import itertools
import json
import sys
import time
from pathlib import Path

from objgan.config import build_config
from pipelines.data.loading.batch_plan import BatchPlan
from pipelines.data.loading.reader import ShardReader, loader

COLUMNS = frozenset({"image", "boxes", "masks"})


def main(folder: Path) -> None:
    """Open, read, print."""
    before, began = _memory(), time.perf_counter()
    reader = ShardReader(folder, "train", COLUMNS, build_config({}), max_words=12)
    steps = loader(reader, BatchPlan(16, 0, 0, 1000))
    next(steps)
    figures = {"rows": len(reader), "first": time.perf_counter() - began}
    figures |= {name: value - before[name] for name, value in _memory().items()}
    for _ in itertools.islice(steps, 200):
        pass
    print(json.dumps(figures | {f"later_{name}": value - before[name] for name, value in _memory().items()}))


def _memory() -> dict[str, int]:
    """Bytes of this process, as Linux counts them."""
    lines = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]]
    kilobytes = {line[0].rstrip(":"): int(line[1]) for line in lines}
    return {"own": 1024 * kilobytes["Pss_Anon"], "mapped": 1024 * kilobytes["Pss_File"]}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
