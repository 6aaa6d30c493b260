"""Workers, process pools, Ray and sweeps count the cores that their process may use (`objgan.cores`)."""

import pytest

from tests.tools.bound_process import one_of_several, under


def test_a_worker_takes_its_share_of_the_bound_cores(tmp_path, repository) -> None:
    code = "import torch; from pipelines.training.worker import _set_threads\n"
    code += "print(_set_threads(0, None, 1), torch.get_num_threads())"
    assert under(one_of_several(), ["-c", code], tmp_path, repository).split() == ["1", "1"]


def test_verify_starts_one_process_for_each_bound_core(prepared, tmp_path, repository) -> None:
    code = (
        "import concurrent.futures, pipelines.data.verify.verify as v\n"
        "class Pool(v.ProcessPoolExecutor):\n"
        "    def __init__(self, processes, *rest): print('processes', processes); super().__init__(processes, *rest)\n"
        f"v.ProcessPoolExecutor = Pool\nv.verify({str(prepared)!r})"
    )
    assert "processes 1\n" in under(one_of_several(), ["-c", code], tmp_path, repository)


@pytest.mark.ray
def test_a_ray_of_our_own_has_the_bound_cores(tmp_path, repository) -> None:
    code = (
        "import ray; from pipelines.runtime.ray_session import ray_session, own_cores\n"
        "with ray_session(): print(int(ray.cluster_resources()['CPU']), own_cores(None))"
    )
    assert under(one_of_several(), ["-c", code], tmp_path, repository).split() == ["1", "1"]
