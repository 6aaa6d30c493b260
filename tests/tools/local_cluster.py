"""A Ray cluster of several nodes on this machine, each a `ray start` of its own: ports, folder, token.

Nodes are ended by process id, with everything that they started; other clusters on the machine are left alone.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.tools.ports import free_port

_HOST = "127.0.0.1"
_PORTS = (
    "node-manager-port", "object-manager-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port",
    "runtime-env-agent-port", "metrics-export-port",
)  # fmt: skip


def wait_until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something, or fail saying what."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)


def write_token(path: Path) -> Path:
    """A new token in a file for its owner alone."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    return path


@dataclass
class Node:
    """One `ray start --block`."""

    process: subprocess.Popen
    log: Path
    ports: Mapping[str, int]

    @property
    def metrics(self) -> str:
        """Where Prometheus would look."""
        return f"http://{_HOST}:{self.ports['metrics-export-port']}/metrics"

    def processes(self) -> list[psutil.Process]:
        """The node's processes, the raylet and its workers among them."""
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """As if the machine were gone: nothing is told, nothing is tidied up."""
        victims = self.processes()
        for victim in victims:
            try:
                victim.send_signal(signal.SIGSTOP)  # nobody starts anything anew, or says goodbye
            except psutil.NoSuchProcess:
                continue
        victims = {*victims, *self.processes()}
        for victim in victims:
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(victims, timeout=20)
        self.process.wait(20)


@dataclass
class LocalCluster:
    """A head without CPUs for workers, and worker nodes.

    folder:      for the token, and a temp dir per node; short, for Ray puts sockets there
    environment: more variables for all nodes, as a pod has them from its Secret
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    head_cpus: int = 0
    head: Node | None = None
    workers: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.token = write_token(self.folder / "token")
        self.port, self.dashboard_port, self._count = free_port(), free_port(), 0

    @property
    def url(self) -> str:
        """Of the job server."""
        return f"http://{_HOST}:{self.dashboard_port}"

    @property
    def address(self) -> str:
        """Of the cluster, for drivers."""
        return f"{_HOST}:{self.port}"

    def start(self, workers: int, cpus: int = 1) -> "LocalCluster":
        """The head, then the workers at once."""
        self.start_head()
        self.workers += [self._worker(cpus) for _ in range(workers)]
        self.wait(1 + workers)
        return self

    def start_head(self) -> None:
        """A head under the cluster's address; also a new one after the old one's death."""
        ports = {"dashboard-port": self.dashboard_port, "ray-client-server-port": free_port()}
        words = ["--head", f"--port={self.port}", "--dashboard-host=127.0.0.1", "--include-dashboard=true"]
        self.head = self._start("head", [*words, f"--num-cpus={self.head_cpus}"], ports)
        wait_until(self._answers, 120, "the job server")

    def add_node(self, cpus: int = 1) -> Node:
        """One more worker node, once it is part of the cluster."""
        before = self.alive()
        self.workers.append(self._worker(cpus))
        self.wait(before + 1)
        return self.workers[-1]

    def alive(self) -> int:
        """Nodes that the head takes for alive."""
        return sum(node["state"] == "ALIVE" for node in self.nodes())

    def nodes(self) -> list[dict]:
        """Nodes as the job server tells of them."""
        answer = self.get("/api/v0/nodes")
        return answer["data"]["result"]["result"] if answer else []

    def wait(self, nodes: int) -> None:
        """Until so many nodes are alive."""

        def there() -> bool:
            for node in self.workers:
                assert node.process.poll() is None, node.log.read_text()[-2000:]
            return self.alive() >= nodes

        wait_until(there, 120, f"{nodes} nodes")

    def get(self, path: str) -> dict | None:
        """An answer of the job server; None while there is none."""
        import json
        from urllib.request import Request, urlopen

        request = Request(self.url + path, headers={"Authorization": f"Bearer {self.token.read_text()}"})
        try:
            with urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """End all nodes."""
        for node in [*self.workers, *([self.head] if self.head else [])]:
            node.kill()

    def __enter__(self) -> "LocalCluster":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _worker(self, cpus: int) -> Node:
        return self._start(f"worker-{self._count}", [f"--address={self.address}", f"--num-cpus={cpus}"], {})

    def _start(self, name: str, words: list[str], ports: Mapping[str, int]) -> Node:
        self._count += 1
        ports = {**ports, **{port: free_port() for port in _PORTS}}
        scratch = self.folder / f"n{self._count}"
        scratch.mkdir()
        log = self.folder / f"{name}-{self._count}.log"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        command += [*words, f"--node-ip-address={_HOST}", f"--temp-dir={scratch}", "--object-store-memory=100000000"]
        command += [f"--{port}={number}" for port, number in ports.items()]
        with log.open("w") as file:
            process = subprocess.Popen(
                command, env=self.environ(), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        return Node(process, log, ports)

    def environ(self) -> dict[str, str]:
        """The variables of nodes: this process's, the path of their token, and `environment`."""
        # Fixture `ray_local` sets the last one, which would leave this cluster without notices of drained nodes.
        without = ("RAY_ADDRESS", "PYTHONPATH", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER")
        kept = {name: value for name, value in os.environ.items() if name not in without}
        kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
        return {**kept, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token), **self.environment}

    def _answers(self) -> bool:
        assert self.head is not None
        assert self.head.process.poll() is None, self.head.log.read_text()[-2000:]
        return self.get("/api/version") is not None
