"""A step that went wrong, kept whole, and done again under a magnifying glass (`train STAGE --replay FOLDER`)."""

import json
import logging
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from objgan.batch import Batch, Part
from objgan.checkpoint import load_inference, read_config, read_state, resume, save_checkpoint
from objgan.domain import Domain
from objgan.errors import InputError
from objgan.files import read_json, write_atomically
from objgan.layout import Layout
from objgan.stages import build_stage, stage_class
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step
from pipelines.data.loading.reader import read_parts
from pipelines.training.job import OpenRun

logger = logging.getLogger(__name__)
_PARTS, _FACTS, _CHECKPOINT = "parts.safetensors", "replay.json", "checkpoint"


def save_replay(run: OpenRun, state: TrainState, step: int) -> str:
    """Keep a step's whole batch, and the networks as they are, in the run's storage; the place, for people.

    A step that was left out changed nothing, so these are the networks it met (but for phases before the one that
    failed, and for later steps on a GPU, which is read two steps late).
    """
    job, reader = run.job, run.reader("train")
    order = replace(job.plan(len(reader), step), stop=step + 1)
    name = f"replay_{step:08d}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        save_checkpoint(folder / _CHECKPOINT, state)
        parts = read_parts(reader, order, step)
        tensors = {f"{part.group}.{key}": value for part in parts for key, value in _flat(part.batch)}
        save_file(tensors, folder / _PARTS)
        facts = {"stage": job.stage, "step": step, "needs": {k: str(v) for k, v in job.needs.items()}}
        write_atomically(folder / _FACTS, json.dumps(facts, indent=1) + "\n")
        run.store.upload(folder, name, last=_FACTS)
    return run.store.child(name).address


@dataclass
class Finding:
    """Results of one group of the step.

    values:  by `phase/term`
    inputs:  names of the batch's tensors that are not finite
    module:  the first network part whose output was not finite, with its name
    """

    group: int
    values: dict[str, float] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    module: str | None = None

    @property
    def bad(self) -> list[str]:
        """Names of the terms that were not finite."""
        return [name for name, value in self.values.items() if not math.isfinite(value)]


def check_replay(
    folder: Path, needs: dict[str, Path] | None = None
) -> tuple[Path, dict[str, Any], dict[str, nn.Module]]:
    """The folder of a kept step, what it says of itself, and the frozen networks that it needs.

    Raises:
        InputError: as `replay`.
    """
    folder = folder.parent if folder.is_file() else folder
    facts = read_json(folder / _FACTS, "replay")
    read_config(folder / _CHECKPOINT)
    stage_class(facts["stage"])
    helpers: dict[str, nn.Module] = {}
    for stage, place in {**facts["needs"], **(needs or {})}.items():
        if not Path(place).is_dir():
            raise InputError(f"replay: the checkpoint of stage {stage} is not in {place}: give it with --{stage} DIR")
        helpers |= load_inference(Path(place))
    return folder, facts, helpers


def replay(folder: Path, needs: dict[str, Path] | None = None) -> list[Finding]:
    """Do a kept step again, each group by itself, and say what is not finite, and where it began.

    needs: checkpoints of earlier stages, where they no longer lie where they did

    Raises:
        InputError: not a kept step, or something that it needs is gone.
    """
    folder, facts, helpers = check_replay(folder, needs)
    config, domain = read_config(folder / _CHECKPOINT), Domain.load(folder / _CHECKPOINT / "domain")
    findings = []
    for part in _load(folder / _PARTS):
        state = TrainState(build_stage(facts["stage"], config, domain, helpers))
        resume(folder / _CHECKPOINT, state)
        state.step = facts["step"]
        finding = Finding(part.group, inputs=[name for name, value in _flat(part.batch) if not _finite(value)])
        with _watching(state, finding):
            record = train_step(state, [part], StepContext(config.seed))
        finding.values = record.numbers()
        findings.append(finding)
        logger.info(describe(finding))
    saved = read_state(folder / _CHECKPOINT)["step"]
    bad = [finding.group for finding in findings if finding.bad]
    logger.info(
        f"step {facts['step']} of stage {facts['stage']} (networks of step {saved}): "
        + (f"not finite in group{'s' if len(bad) > 1 else ''} {', '.join(map(str, bad))}" if bad else "finite here")
    )
    return findings


def describe(finding: Finding) -> str:
    """A few lines for people."""
    lines = [f"group {finding.group}:"]
    lines += [f"  input {name} is not finite" for name in finding.inputs]
    if finding.module:
        lines.append(f"  the first output that is not finite is that of {finding.module}")
    terms = [(name, value) for name, value in finding.values.items() if "/" in name]
    lines += [
        f"  {name:<44}{value:>14.6g}{'' if math.isfinite(value) else '   <- not finite'}" for name, value in terms
    ]
    return "\n".join(lines)


@contextmanager
def _watching(state: TrainState, finding: Finding) -> Iterator[None]:
    """Note the first module, in the order in which they run, whose output is not finite."""

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if finding.module is None and not all(_finite(tensor) for tensor in _tensors(output)):
                finding.module = f"{name} ({type(module).__name__})"

        return hook

    parts = [("networks", state.stage.networks), ("helpers", state.stage.helpers)]
    named = [(f"{kind}.{name}", module) for kind, root in parts for name, module in root.named_modules() if name]
    hooks = [module.register_forward_hook(look(name)) for name, module in named]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif hasattr(value, "__dataclass_fields__"):
        for one in vars(value).values():
            yield from _tensors(one)


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


def _flat(batch: Batch) -> Iterator[tuple[str, Tensor]]:
    for holder, prefix in ((batch, ""), (batch.layout, "layout.")):
        for one in fields(holder):
            value = getattr(holder, one.name)
            if isinstance(value, Tensor):
                yield prefix + one.name, value


def _load(path: Path) -> list[Part]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"replay: cannot read {path} ({error}): give the folder that the run named") from None
    groups: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        group, key = name.split(".", 1)
        groups.setdefault(int(group), {})[key] = value
    return [Part(group, _batch(values)) for group, values in sorted(groups.items())]


def _batch(values: dict[str, Tensor]) -> Batch:
    layout = {key.removeprefix("layout."): value for key, value in values.items() if key.startswith("layout.")}
    rest = {key: value for key, value in values.items() if not key.startswith("layout.")}
    return Batch(layout=Layout(**layout), **rest)
