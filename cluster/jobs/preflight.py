"""Checks before a job starts: the nodes' answers to `probe`, compared with the needs of the command."""

import contextlib
import json
import secrets
import shlex
import time
from typing import Any

from cluster.jobs.command import Ask
from cluster.jobs.probe import MARK, versions
from cluster.jobs.ray_jobs import KIND_KEY, Job, asking, logs_of
from objgan.errors import InputError

LIMIT_S = 60.0
_TIDY_S = 15.0
"""Time for the end of a stopped check; Ray kills it after 3 s."""
_SETTLE_S = 1.5
_POLL_S = 0.3


def probe(client: Any, runtime: dict[str, Any], location: str | None, end: float) -> dict[str, Any]:
    """Run the probe as a job and return its facts. The job is removed from the cluster, also on error.

    runtime: runtime environment of the real job, which nodes have ready afterwards
    end:     `time.monotonic()` at which all checks must be over

    Raises:
        InputError: the cluster did not run it in time, or cannot run it.
    """
    name, limit = f"check-{secrets.token_hex(6)}", max(1.0, end - time.monotonic())
    words = ["exec", "python", "-m", "cluster.jobs.probe", "--seconds", f"{limit / 2:.0f}"]
    words += [location] if location else []
    try:
        client.submit_job(
            entrypoint=shlex.join(words), submission_id=name, runtime_env=runtime, metadata={KIND_KEY: "check"}
        )
        job = Job.of(asking(lambda: client.get_job_info(name)))
        while not job.over and time.monotonic() < end:
            time.sleep(_POLL_S)
            job = Job.of(asking(lambda: client.get_job_info(name)))
        log = logs_of(client, job)
    finally:
        _tidy(client, name)
    if not job.over:
        raise InputError(
            f"the cluster has not run a check of a few seconds within {limit:.0f} s (its state: {job.state}): check "
            f"whether its head is overloaded or still starting, or allow more time with --check-timeout SECONDS"
        )
    answer = next((line for line in reversed(log.splitlines()) if line.startswith(MARK)), None)
    if answer is None:
        last = " ".join((log.strip().splitlines() or [job.message])[-1].split())[:300]
        raise InputError(f"the cluster cannot run this checkout ({last}): check that its image has the same packages")
    facts: dict[str, Any] = json.loads(answer.removeprefix(MARK))
    return facts


def faults(facts: dict[str, Any], ask: Ask, location: str | None) -> list[str]:
    """A line for each fault of resources, storage and versions."""
    nodes = facts["nodes"]
    silent = [f"node {node['name']} does not answer: {node['silent']}" for node in nodes if "silent" in node]
    nodes = [node for node in nodes if "silent" not in node]
    return [*silent, *_resources(facts["resources"], ask), *_storage(nodes, location), *_versions(nodes)]


def _resources(resources: dict[str, float], ask: Ask) -> list[str]:
    kind, wanted, count = ask.of(resources)
    if wanted <= count or ask.grows:
        return []
    more = "" if count == 1 else "s"
    return [
        f"the command wants {wanted} workers of one {kind} each, and the cluster has {count} {kind}{more}: ask for "
        f"fewer (--workers), or add nodes; for a cluster that grows on demand, add --set compute.autoscaling=true"
    ]


def _storage(nodes: list[dict[str, Any]], location: str | None) -> list[str]:
    bad = {node["name"]: node["storage"] for node in nodes if node.get("storage")}
    if not bad or location is None:
        return []
    shown = location.partition("?")[0]
    name, why = next(iter(bad.items()))
    others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    if why.startswith("does not see"):
        return [
            f"storage {shown} is not shared: node {name}{others} {why}: mount one store on all nodes, or use a bucket"
        ]
    return [f"storage {shown}: node {name}{others} cannot use it ({why}): check mount, rights and credentials"]


def _versions(nodes: list[dict[str, Any]]) -> list[str]:
    lines = []
    for package, ours in versions().items():
        other = {node["name"]: node["versions"].get(package) for node in nodes if node["versions"].get(package) != ours}
        if other:
            name, theirs = next(iter(other.items()))
            more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
            lines.append(f"{package} is {ours} here and {theirs or 'missing'} on node {name}{more}: use the same image")
    return lines


def _tidy(client: Any, name: str) -> None:
    """Remove the check from the list of jobs: stop it if it still runs, and delete it after its end.

    Ray's job manager polls the process of a job once a second. If the process has ended and the job is deleted, it
    adds the job again, as failed. So the job is deleted twice.
    """
    end = time.monotonic() + _TIDY_S
    # The facts matter more than an entry in the list of jobs.
    with contextlib.suppress(Exception):
        if not Job.of(client.get_job_info(name)).over:
            client.stop_job(name)
        while not Job.of(client.get_job_info(name)).over and time.monotonic() < end:
            time.sleep(_POLL_S)
        time.sleep(_SETTLE_S)
        client.delete_job(name)
        time.sleep(_SETTLE_S)
        client.delete_job(name)
