"""One worker process of `test_groups`; several of them share the groups of a batch.

Trains every stage for two steps and leaves the gradients of each phase, the networks and what the steps told.
"""

import json
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

import objgan.averaging
from objgan.batch import Batch, Part
from objgan.config import Config, build_config
from objgan.domain import Domain
from objgan.layout import Layout
from objgan.stages import STAGE_CLASSES, build_stage
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step

GROUPS, STEPS = 4, 2


def main(folder: Path, rank: int, world: int) -> None:
    torch.set_num_threads(1)
    # So small that every network fills several: they are sent while the backward pass goes on.
    objgan.averaging.BUCKET_BYTES = 20_000
    dist.init_process_group("gloo", init_method=f"file://{folder / f'store_{world}'}", rank=rank, world_size=world)
    config, domain = build_config(json.loads((folder / "config.json").read_text())), Domain.load(folder / "domain")
    groups = [Part(group, batch_from(load_file(folder / f"group_{group}.safetensors"))) for group in range(GROUPS)]
    own = groups[GROUPS * rank // world : GROUPS * (rank + 1) // world]
    for name in STAGE_CLASSES:
        found = train(name, config, domain, own)
        if rank == 0:
            save_file(found, folder / f"{name}_{world}.safetensors")
    dist.destroy_process_group()


def train(name: str, config: Config, domain: Domain, parts: list[Part]) -> dict[str, Tensor]:
    torch.manual_seed(1)
    helpers = dict(build_stage("encoders", config, domain, {}).networks)
    state = TrainState(build_stage(name, config, domain, helpers))
    found: dict[str, Tensor] = {}
    for phase, optimiser in state.optimisers.items():
        optimiser.register_step_pre_hook(
            lambda adam, *rest, phase=phase: found.update(
                {
                    f"gradient.{state.step}.{phase}.{index}": p.grad.clone()
                    for index, p in enumerate(adam.param_groups[0]["params"])
                }
            )
        )
    for step in range(STEPS):
        record = train_step(state, parts, StepContext(seed=3, groups=GROUPS), attention=True)
        found[f"record.{step}"] = record.values.clone()
    networks = state.stage.networks.state_dict() | {f"ema.{k}": v for k, v in state.ema.state_dict().items()}
    return found | {f"network.{key}": value.clone().contiguous() for key, value in networks.items()}


def batch_to(batch: Batch) -> dict[str, Tensor]:
    assert batch.images is not None
    assert batch.layout.masks is not None
    layout = batch.layout
    return {
        "image_ids": batch.image_ids,
        "words": batch.words,
        "word_count": batch.word_count,
        "images": batch.images,
        "labels": layout.labels,
        "boxes": layout.boxes,
        "count": layout.count,
        "masks": layout.masks,
    }


def batch_from(tensors: dict[str, Tensor]) -> Batch:
    layout = Layout(*(tensors.pop(name) for name in ("labels", "boxes", "count", "masks")))
    return Batch(layout=layout, **tensors)
