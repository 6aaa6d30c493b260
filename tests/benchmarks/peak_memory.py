"""`python -m tests.benchmarks.peak_memory COMMAND ...`: peak memory of a command and of all that it starts.

Proportional set size (PSS), summed over the process tree every half second: memory that processes share, such as
Ray's object store, counts once.
"""

import subprocess
import sys
import time
from collections.abc import Sequence

import psutil


def main(command: Sequence[str]) -> int:
    """Run the command; print the peak; its exit code."""
    if not command:
        print("give a command", file=sys.stderr)
        return 2
    peak, began = 0, time.monotonic()
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, tree_pss(process.pid))
        time.sleep(0.5)
    print(
        f"peak memory {peak / 2**30:.2f} GiB (PSS of all processes), {time.monotonic() - began:.0f} s", file=sys.stderr
    )
    return process.returncode


def tree_pss(pid: int) -> int:
    """Bytes of a process and its descendants."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
