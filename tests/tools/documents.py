"""The commands of the documents, and the form in which the tests run each.

SHORT has the form that is run for each: a whole command, or `+ options` for the command with further options.
Commands run in the order of their document, in an empty folder beside a link to ../shared, as a reader would type them.
"""

import importlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "pipelines/README.md", "tune/README.md", "cluster/README.md")

QUICK = "+ --config quick.yaml"
COCO = (
    "python -m pipelines run --images coco/train2017 --instances coco/annotations/instances_train2017.json "
    "--captions coco/annotations/captions_train2017.json --recipe tiny --out runs/coco"
)
CLUSTER = "--address http://127.0.0.1:8265 --token-file ~/.ray/objgan-token"
JOB = "-- python -m pipelines run --recipe small --workers 4 --out runs/first"
FIRST = "-- python -m pipelines train boxes --data data --run first --set boxes.training.checkpoint_every=50"
SWEEP = (
    "python -m tune boxes --data data/tune --set boxes.training.steps=300 --set boxes.training.checkpoint_every=60 "
    "--trials 8"
)
SHORT: dict[str, str] = {
    # Its own command, in a shorter form: fixture `killed_demo`.
    "make demo": "make --dry-run demo",
    "make test": "make --dry-run test",
    "make setup": "make --dry-run --always-make setup",
    "make test-quick": "make --dry-run test-quick",
    "python -m pipelines explain images.training": "+",
    "python -m pipelines explain --markdown > docs/settings.md": "python -m pipelines explain --markdown",
    "make lint": "make --dry-run lint",
    "make format": "make --dry-run format",
    "source .venv/bin/activate": "make --dry-run --always-make setup",
    COCO: (
        "python -m pipelines run --images ../shared/coco/images --instances ../shared/coco/annotations/instances.json "
        "--captions ../shared/coco/annotations/captions.json --recipe tiny --out runs/coco --config quick.yaml"
    ),
    'python -m pipelines generate "two red kites above a boat on the sea" --n 4 --seed 1 --out runs/mine': "+",
    "python -m pipelines generate --layout runs/mine/two-red-kites-above-a-boat-on-the-sea_0.json --out runs/edited": (
        "+"
    ),
    "python -m pipelines run --recipe small --set images.training.generator_lr=2e-4 "
    "--set images.training.batch_size=8 --dry-run": "+",
    "python -m pipelines sample --out data/sample-coco --images 400 --seed 0": (
        "python -m pipelines sample --out data/sample-coco --images 60 --seed 0"
    ),
    "python -m pipelines prepare --images data/sample-coco/images "
    "--instances data/sample-coco/annotations/instances.json "
    "--captions data/sample-coco/annotations/captions.json --out data/prepared": QUICK,
    # The whole run: tests/pipelines/workflow/test_other_data.py.
    "python -m pipelines run --images detection/images --instances detection/instances.json --captions-from classes "
    "--set data.shapes=ellipse --out runs/detection": (
        "python -m pipelines run --images data/sample-coco/images "
        "--instances data/sample-coco/annotations/instances.json --captions-from classes "
        "--set data.shapes=ellipse --out runs/detection --config quick.yaml --dry-run"
    ),
    "python -m pipelines verify data/prepared": "+",
    "python -m pipelines inspect data/prepared --out runs/inspect.html --samples 48": "+",
    "python -m pipelines train encoders --data data/prepared --run first": QUICK,
    "python -m pipelines train boxes --data data/prepared --run first": QUICK,
    "python -m pipelines train shapes --data data/prepared --run first": QUICK,
    "python -m pipelines train images --data data/prepared --run first --workers 2 --set images.training.group=4": (
        f"{QUICK} --set images.training.batch_size=8"
    ),
    "python -m pipelines train shapes --data data/prepared --run tuned --init-from runs/first/shapes/step_00000120": (
        "python -m pipelines train shapes --data data/prepared --run tuned "
        "--init-from runs/first/shapes/step_00000002 --config quick.yaml"
    ),
    "python -m pipelines train images --data data/prepared --run first --profile": (
        f"{QUICK} --set images.training.group=4 --set images.training.batch_size=8"
    ),
    "python -m pipelines runs": "+",
    "python -m pipelines runs status first": "+",
    "python -m pipelines runs list --json": "+",
    "python -m pipelines runs gc --dry-run": "+",
    "python -m pipelines runs relocate": "+",
    "python -m pipelines register --run first --alias challenger": "+",
    "python -m pipelines judges --data data/prepared --out runs/judges": QUICK,
    "python -m pipelines evaluate --model models:/objgan@challenger --data data/prepared --judges runs/judges "
    "--out runs/evaluation": "+ --protocol quick",
    'python -m pipelines generate "three sheep in the snow" --model models:/objgan@challenger --out runs/generated': (
        "+"
    ),
    "python -m pipelines promote --model models:/objgan@challenger --data data/prepared --judges runs/judges "
    "--out runs/promotion": "+ --protocol quick --force readme",
    "python -m pipelines promote --rollback": "+",
    "python -m pipelines generate --captions captions.csv --out runs/pictures": "+ --workers 1",
    # A server: tests/pipelines/studio/.
    "python -m pipelines studio": "+ --help",
    # `demo`, in the README's first command, runs all the steps that `run` does on sample data.
    "python -m pipelines run --out runs/all": "+ --config quick.yaml --dry-run",
    "python -m pipelines run --out runs/all --dry-run": "+",
    "mlflow ui --backend-store-uri sqlite:///runs/mlflow.db": "+ --help",
    "python -m cluster render --list": "+",
    "python -m cluster render --preset gpu-spot --set workers.max=16 --set image=registry.example/objgan:cuda "
    "> job.yaml": (
        "python -m cluster render --preset gpu-spot --set workers.max=16 --set image=registry.example/objgan:cuda"
    ),
    "python -m cluster render --all manifests": "+",
    "python -m cluster estimate --samples-per-second 40 --steps 620873 --batch 16 --machines 4 --price 1.2 "
    "--head-price 0.2 --overhead 0.15": "+",
    # These need a cluster: tests/cluster/jobs/test_live.py, and for Ray's words tests/cluster/test_first_cluster.py.
    "ray start --head --port=6379 --num-cpus=0": "ray start --help",
    "ray start --address=127.0.0.1:6379 --num-cpus=2 --dashboard-agent-listen-port=52366": "ray start --help",
    "python -m cluster submit --id data --storage /tmp/objgan --wait -- python -m pipelines prepare --out data": (
        "python -m cluster submit --id data --storage /tmp/objgan --wait --dry-run -- python -m pipelines prepare "
        "--out data"
    ),
    f"python -m cluster submit --id boxes --storage /tmp/objgan {FIRST}": (
        f"python -m cluster submit --id boxes --storage /tmp/objgan --dry-run {FIRST}"
    ),
    f"python -m cluster submit --id boxes --resume --storage /tmp/objgan --follow {FIRST}": (
        f"python -m cluster submit --id boxes --resume --storage /tmp/objgan --follow --dry-run {FIRST}"
    ),
    "python -m cluster status": "+ --help",
    "python -m cluster logs boxes --follow": "+ --help",
    "python -m cluster stop boxes": "+ --help",
    "python -m cluster token ~/.ray/objgan-token": "python -m cluster token objgan-token",
    f"python -m cluster submit {CLUSTER} --id first --storage /data --follow {JOB}": (
        f"python -m cluster submit {CLUSTER} --id first --storage /data --follow --dry-run {JOB}"
    ),
    f"python -m cluster status {CLUSTER} first": "+ --help",
    f"python -m cluster logs {CLUSTER} first --follow": "+ --help",
    f"python -m cluster stop {CLUSTER} first": "+ --help",
    "python -m pipelines sample --out data/tune-coco --images 600 --seed 0": (
        "python -m pipelines sample --out data/tune-coco --images 60 --seed 0"
    ),
    "python -m pipelines prepare --images data/tune-coco/images "
    "--instances data/tune-coco/annotations/instances.json "
    "--captions data/tune-coco/annotations/captions.json --out data/tune": QUICK,
    f"{SWEEP} --dry-run": "+ --config quick.yaml",
    f"{SWEEP} --run first-sweep --export-recipe runs/best-boxes.yaml": (
        "python -m tune boxes --data data/tune --config quick.yaml --set boxes.training.checkpoint_every=1 --trials 2 "
        "--run first-sweep --export-recipe runs/best-boxes.yaml"
    ),
    "python -m tune show first-sweep": "+",
    "python -m pipelines train boxes --data data/tune --config runs/best-boxes.yaml --run best": "+ --dry-run",
    "python -m tune space boxes --out my-space.yaml": "+",
    "python -m tune boxes --data data/tune --space my-space.yaml --metric count_error --search optuna --dry-run": "+",
    "python -m tune images --data data/prepared --encoders runs/first/encoders/step_00000300 --judges runs/judges "
    '--metric from_layouts/object_accuracy --require "from_layouts/fd_encoder <= 40"': "+ --help",
    # What these two do beyond that is in tests/tune/cli/test_sweep.py.
    "python -m tune --resume first-sweep": "+ --dry-run",
    "python -m tune --resume first-sweep --confirm 3 --register objgan --export-recipe runs/best-boxes.yaml": (
        "+ --dry-run"
    ),
    "python -m tune images --data s3://bucket/coco --encoders /mnt/encoders --recipe small "
    "--storage s3://bucket/runs --address head:6379 --workers 1 --max-concurrent 8 --trials 40 --time-budget 2d "
    "--gpu-hours 400 --search optuna --confirm 3": "+ --help",
}
STAGE = "{training: {steps: 2, batch_size: 6, validation_samples: 6, checkpoint_every: 2}}"
SETTINGS = "".join(f"{stage}: {STAGE}\n" for stage in ("encoders", "boxes", "shapes", "images", "judge"))


def commands(text: str) -> Iterator[str]:
    """The commands in a document's ```bash blocks, continued lines joined, without their comments."""
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if command := plain(line):
                yield command


def plain(command: str) -> str:
    """With one way of quoting, and no comment."""
    return shlex.join(shlex.split(command, comments=True))


def shortened(command: str) -> str:
    short = {plain(long): short for long, short in SHORT.items()}[command]
    return f"{command}{short[1:]}" if short.startswith("+") else short


def run_all(repository: Path, work: Path, asked: Sequence[str]) -> None:
    """Each command in a process of its own, in `work`; says the seconds of each."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment["PYTHONPATH"] = str(repository)
    for command in map(shortened, asked):
        program, *words = shlex.split(command)
        beside = Path(sys.executable).parent / program
        program = sys.executable if program == "python" else str(beside) if beside.exists() else program
        began = time.monotonic()
        done = subprocess.run(
            [program, *words],
            cwd=repository if program == "make" else work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        print(f"{time.monotonic() - began:5.1f} s  {command}")
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def run_all_here(repository: Path, work: Path, asked: Sequence[str]) -> None:
    """The same, but our own programs run in this process: their imports and the start of Ray are paid once."""
    for one in asked:
        module, words = _program(shortened(one))
        if module is None:
            run_all(repository, work, [one])
            continue
        began = time.monotonic()
        try:
            code = module.main(words)
        except SystemExit as end:  # argparse, after --help
            code = end.code
        print(f"{time.monotonic() - began:5.1f} s  {one}")
        assert code == 0, one


def _program(command: str) -> tuple[Any, list[str]]:
    """The module of `python -m pipelines|tune` and the words after it; None for other commands."""
    match shlex.split(command):
        case ["python", "-m", ("pipelines" | "tune") as name, *words]:
            return importlib.import_module(f"{name}.__main__"), words
        case words:
            return None, words
