"""`A cluster on one machine` in cluster/README.md: its `ray start` lines, as Ray's own command line reads them."""

import re
import shlex
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def lines(repository: Path) -> list[str]:
    section = (
        (repository / "cluster" / "README.md").read_text().split("## A cluster on one machine")[1].split("\n## ")[0]
    )
    blocks = re.findall(r"^ *```(?:ba)?sh\n(.*?)^ *```", section, re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines()]


def test_ray_reads_the_two_lines_as_a_head_and_its_worker(lines: list[str]) -> None:
    from ray.scripts.scripts import start

    read = [start.make_context("start", shlex.split(line)[2:]).params for line in lines if line.startswith("ray start")]
    head, worker, again = read
    assert head["head"] and not worker["head"]
    assert head["num_cpus"] == 0 and worker["num_cpus"] == 2
    assert worker["address"] == f"127.0.0.1:{head['port']}"
    # Two nodes on one machine: the second one's agent listens elsewhere.
    assert worker["dashboard_agent_listen_port"] != head["dashboard_agent_listen_port"]
    assert again == worker


def test_the_worker_is_found_by_the_port_that_it_alone_has(lines: list[str]) -> None:
    (kill,) = (line for line in lines if line.startswith("kill"))
    (pattern,) = re.findall(r"pgrep -f '(.*)'", kill)
    (port,) = {shlex.split(line)[-1].rpartition("=")[2] for line in lines if "dashboard-agent-listen-port" in line}
    assert re.search(pattern, f"/x/raylet/raylet --raylet_socket_name=/s --agent --dashboard-agent-port={port}")
    assert not re.search(pattern, "/x/raylet/raylet --raylet_socket_name=/s --dashboard-agent-port=52365")


def test_the_job_that_is_resumed_is_the_one_that_was_submitted(lines: list[str]) -> None:
    submitted, resumed = (line.partition(" -- ") for line in lines if "submit --id boxes" in line)
    assert submitted[2] == resumed[2]
    assert "--resume" in resumed[0] and "--resume" not in submitted[0]
