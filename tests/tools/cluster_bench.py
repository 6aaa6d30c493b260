"""What tests on a cluster share: small data, jobs of few parameters, an MLflow server, the commands of `cluster`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.request import urlopen

import yaml

from pipelines.data.prepare.convert import run_here
from pipelines.data.prepare.prepare import prepare
from pipelines.data.sample import make_sample
from pipelines.recipes import resolve
from pipelines.workflow.run import sample_source
from tests.tools.local_cluster import LocalCluster, wait_until
from tests.tools.ports import free_port

REPOSITORY = Path(__file__).resolve().parent.parent.parent
_THIN = {"width": 8, "class_embedding": 4, "noise": 2, "discriminator_width": 8}


class Bench:
    """A folder that all nodes see, with prepared data and settings of a stage of a few parameters."""

    def __init__(self, folder: Path, images: int = 40) -> None:
        self.folder, self.data = folder, folder / "data"
        make_sample(folder / "coco", images, 0)
        config = resolve("tiny", None, [])
        prepare(sample_source(folder / "coco"), self.data, config, run_here)
        shapes = {
            **_THIN,
            "training": {
                "batch_size": 4, "group": 2, "picture_every": 1_000_000, "log_every": 1, "validation_samples": 4,
                "max_failures": 20,
            },
        }  # fmt: skip
        (folder / "settings.yaml").write_text(yaml.safe_dump({"shapes": shapes, "compute": {"threads": 1}}))

    def train(self, run: str, steps: int, workers: int | str = 1, every: int = 1_000_000) -> list[str]:
        """The words of a training command, to be run in the folder."""
        words = ["python", "-m", "pipelines", "train", "shapes", "--data", str(self.data), "--run", run]
        words += ["--config", str(self.folder / "settings.yaml"), "--workers", str(workers)]
        return [*words, f"--set=shapes.training.steps={steps}", f"--set=shapes.training.checkpoint_every={every}"]

    def run(self, name: str) -> Path:
        """Where a run lives."""
        return self.folder / "runs" / name / "shapes"

    def lines(self, folder: Path) -> list[dict]:
        """What a run told."""
        try:
            return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]
        except (OSError, ValueError):
            return []

    def step(self, folder: Path) -> int:
        """The last step that a run told."""
        return max((line["step"] for line in self.lines(folder) if "values" in line), default=0)


class Jobs:
    """`python -m cluster ...` against one cluster. environment: of whoever submits."""

    def __init__(self, cluster: LocalCluster, storage: Path, environment: Mapping[str, str]) -> None:
        self._cluster, self._storage = cluster, storage
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_A")}
        # Whoever runs the tests may have a token for something else.
        self._environment = {**kept, "HOME": str(storage), "HF_HOME": "/nowhere", **environment}

    def start(
        self,
        name: str,
        *words: str,
        resume: bool = False,
        storage: str | None = None,
        wait: Sequence[str] = ("--follow",),
    ) -> subprocess.Popen[str]:
        """Begin to submit; output and errors are one."""
        options = ["--id", name, "--storage", storage or str(self._storage), *wait, *(["--resume"] if resume else [])]
        return self._popen("submit", *options, "--", *words, token=self._cluster.token)

    def submit(self, name: str, *words: str, resume: bool = False, storage: str | None = None) -> tuple[int, str]:
        """Submit and follow; exit code and all that was said."""
        process = self.start(name, *words, resume=resume, storage=storage)
        said, _ = process.communicate(timeout=400)
        return process.returncode, said

    def ask(self, command: str, *words: str, token: Path | None = Path()) -> tuple[int, str]:
        """Another command; token: None leaves it out."""
        process = self._popen(command, *words, token=self._cluster.token if token == Path() else token)
        said, _ = process.communicate(timeout=240)
        return process.returncode, said

    def _popen(self, command: str, *words: str, token: Path | None) -> subprocess.Popen[str]:
        given = ["--address", self._cluster.url, *(["--token-file", str(token)] if token else [])]
        return subprocess.Popen(
            [sys.executable, "-m", "cluster", command, *given, *words],
            cwd=REPOSITORY,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


class MLflowServer:
    """A server over sqlite, for the length of a block; it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder, self._port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "MLflowServer":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def start(self) -> None:
        """Until it answers."""
        words = ["-m", "mlflow", "server", "--port", str(self._port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}"]
        words += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        self._server = subprocess.Popen(
            [sys.executable, *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        wait_until(self._answers, 90, "the MLflow server")

    def kill(self) -> None:
        """At once."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()

    def runs(self) -> list:
        """All runs of the experiment, newest first."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self.uri)
        found = client.search_experiments(filter_string="name = 'objgan'")
        return list(client.search_runs([one.experiment_id for one in found])) if found else []

    def tags(self) -> dict[str, str]:
        """Of the newest run."""
        return dict(self.runs()[0].data.tags)

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
