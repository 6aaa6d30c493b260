"""`python -m tests.tools.sweep_driver STORAGE RUN`: a sweep's driver with its own Ray, and faults while it runs.

`--hold WORD`: all CPUs are occupied until a line with WORD is logged. `--kill worker|trial`: SIGKILL to a process as
soon as a first checkpoint exists. The last line gives the CPUs that are still occupied at the end of the sweep.
"""

import argparse
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import ray

from pipelines.runtime.ray_session import ray_session
from tests.tools.logged import logged
from tests.tools.training import training_workers, wait_until
from tune.engine.engine import run_sweep
from tune.sweep.spec_file import known_sweep


class Holder:
    """Holds CPUs."""

    def ready(self) -> bool:
        return True


def trial_processes() -> list[psutil.Process]:
    """Processes of Ray Tune's trials below this one."""
    processes = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if any("ResourceTrainable" in word or "SweepTrial" in word for word in process.cmdline()):
                processes.append(process)
        except psutil.Error:
            continue
    return processes


def kill(folder: Path, who: str) -> None:
    """SIGKILL to the trial's own process, or to its worker, as soon as its first checkpoint exists."""
    wait_until(lambda: bool(list((folder / "trials").glob("*/*/step_*"))))
    processes = training_workers(os.getpid()) if who == "worker" else trial_processes()
    processes[0].send_signal(signal.SIGKILL)


def main() -> None:
    """Run the sweep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("storage")
    parser.add_argument("run")
    parser.add_argument("--hold")
    parser.add_argument("--kill")
    options = parser.parse_args()
    sweep = known_sweep(options.storage, options.run)
    if options.kill:
        folder = Path(options.storage) / options.run
        threading.Thread(target=kill, args=(folder, options.kill), daemon=True).start()
    with ray_session(dashboard=True):
        held = []
        if options.hold:
            held.append(ray.remote(num_cpus=ray.cluster_resources()["CPU"])(Holder).remote())
            ray.get(held[0].ready.remote(), timeout=60)

        def log(text: str) -> None:
            print(text, flush=True)
            if held and options.hold in text:
                ray.kill(held.pop())

        with logged(log):
            run_sweep(sweep, [], resume=True)
        while held:
            ray.kill(held.pop())
        deadline = time.monotonic() + 120
        while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"] and time.monotonic() < deadline:
            time.sleep(0.2)
        print(f"cpus taken: {ray.cluster_resources()['CPU'] - ray.available_resources().get('CPU', 0):.0f}", flush=True)


if __name__ == "__main__":
    main()
