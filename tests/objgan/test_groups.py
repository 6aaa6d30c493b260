"""A step is the same on 1, 2, 3 and 4 workers, each a process with some of the batch's groups."""

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from objgan.batch import Batch
from objgan.config import Config, build_config, config_to_json
from objgan.domain import Domain
from objgan.stages import STAGE_CLASSES, build_stage
from objgan.train_state import TrainState
from objgan.training import StepContext, train_step
from tests.tools import group_worker
from tests.tools.group_worker import GROUPS, STEPS, batch_to

WORLDS = (1, 2, 3, 4)
TOLERANCE = 1e-5


def _config(base: Config) -> Config:
    """All that looks at several samples, draws noise, or keeps statistics is on."""
    values = base.model_dump(mode="json")
    for name in STAGE_CLASSES:
        values[name]["training"] |= {"batch_size": 2 * GROUPS, "group": 2}
    values["boxes"]["training"]["adversarial_weight"] = 0.1
    values["boxes"]["word_dropout"] = 0.2
    values["encoders"]["dropout"] = 0.3
    values["shapes"]["adversarial"] = "hinge"
    values["images"] |= {"augment": True}
    values["images"]["training"] |= {"gradient_penalty": 2.0, "gradient_penalty_every": 2, "feature_weight": 1.0}
    return build_config(values)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return tmp_path_factory.mktemp("workers")


@pytest.fixture
def found(
    results: Path,
    tiny_config: Config,
    domain: Domain,
    make_batch: Callable[..., Batch],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The folder in which the workers left what they found; they run once."""
    if (results / "config.json").exists():
        return results
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    domain.save(results / "domain")
    for group in range(GROUPS):
        # The second group has no object at all: its discriminators of objects see nothing.
        batch = make_batch(2, counts=[0, 0] if group == 1 else [1 + group, 2], seed=group)
        batch = replace(batch, image_ids=batch.image_ids + 10 * group)
        save_file(batch_to(batch), results / f"group_{group}.safetensors")
    (results / "config.json").write_text(config_to_json(_config(tiny_config)))
    # The fork server imports torch once for all of them.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tools.group_worker"])
    for world in WORLDS:
        workers = [context.Process(target=group_worker.main, args=(results, rank, world)) for rank in range(world)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(200)
        assert [worker.exitcode for worker in workers] == [0] * world
    return results


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGE_CLASSES)
@pytest.mark.parametrize("world", WORLDS[1:])
def test_gradients_and_networks_do_not_depend_on_the_number_of_workers(found: Path, stage: str, world: int) -> None:
    alone, shared = (load_file(found / f"{stage}_{number}.safetensors") for number in (1, world))
    assert alone.keys() == shared.keys()
    gradients = [name for name in alone if name.startswith("gradient.0")]
    assert len(gradients) > 10
    for name in gradients:
        largest = max(1.0, alone[name].abs().max().item())
        torch.testing.assert_close(shared[name], alone[name], rtol=0, atol=TOLERANCE * largest, msg=name)
    statistics = [name for name in alone if "running_" in name]
    for name in statistics:
        torch.testing.assert_close(shared[name], alone[name], rtol=1e-3, atol=1e-3, msg=name)
    moving = [name for name in alone if name.endswith(("_u", "_v", "num_batches_tracked"))]
    for name in moving:
        torch.testing.assert_close(shared[name], alone[name], rtol=1e-3, atol=1e-3, msg=name)
    assert len(statistics) + len(moving) >= {"encoders": 8, "boxes": 8, "shapes": 8, "images": 20}[stage]
    first, last = (f"record.{step}" for step in (0, STEPS - 1))
    torch.testing.assert_close(shared[first][:-1], alone[first][:-1], rtol=1e-4, atol=1e-4)
    assert alone[last][-1] == 1
    assert shared[last][-1] == world, "each worker's attention reaches all"


def test_the_order_of_the_groups_does_not_matter(
    tiny_config: Config, domain: Domain, make_batch: Callable[..., Batch]
) -> None:
    from objgan.batch import Part

    parts = [Part(group, make_batch(2, seed=group)) for group in range(3)]
    config = _config(tiny_config)
    weights = []
    for order in (parts, parts[::-1]):
        torch.manual_seed(0)
        state = TrainState(build_stage("shapes", config, domain, {}))
        train_step(state, order, StepContext(seed=1, groups=3))
        weights.append(state.stage.networks.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-6, msg=name)
