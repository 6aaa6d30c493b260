"""What is looked at before a job starts: the nodes' answers to `probe`, held against what the command wants."""

import contextlib
import json
import secrets
import shlex
import time
from typing import Any

from cluster.errors import InputError
from cluster.jobs.command import Ask
from cluster.jobs.probe import MARK, versions
from cluster.jobs.ray_jobs import KIND_KEY, Job, asking, logs_of

LIMIT_S = 60.0
_TIDY_S = 15.0
"""For the end of a check that was stopped; Ray kills it after 3 s."""
_SETTLE_S = 1.5
_POLL_S = 0.3


def probe(client: Any, runtime: dict[str, Any], location: str | None, end: float) -> dict[str, Any]:
    """Run the probe as a job; what it found. The job is gone from the cluster afterwards, however this ends.

    runtime: the job's runtime environment, so that nodes have it ready afterwards
    end:     `time.monotonic()` at which all checks should be over

    Raises:
        InputError: the cluster does not run it in time, or at all.
    """
    name, limit = f"check-{secrets.token_hex(6)}", max(1.0, end - time.monotonic())
    words = [
        "exec",
        "python",
        "-m",
        "cluster.jobs.probe",
        "--seconds",
        f"{limit / 2:.0f}",
        *([location] if location else []),
    ]
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
            f"the cluster has not run a check of a few seconds within {limit:.0f} s (it is {job.state}): see whether "
            f"its head is overloaded, or still starting, and allow more time with --check-timeout SECONDS"
        )
    found = next((line for line in reversed(log.splitlines()) if line.startswith(MARK)), None)
    if found is None:
        last = " ".join((log.strip().splitlines() or [job.message])[-1].split())[:300]
        raise InputError(f"the cluster cannot run this checkout ({last}): see that its image has the same packages")
    facts: dict[str, Any] = json.loads(found.removeprefix(MARK))
    return facts


def faults(facts: dict[str, Any], ask: Ask, location: str | None) -> list[str]:
    """What is wrong, a line each: resources, storage, versions."""
    nodes = facts["nodes"]
    silent = [f"node {node['name']} does not answer: {node['silent']}" for node in nodes if "silent" in node]
    nodes = [node for node in nodes if "silent" not in node]
    return [*silent, *_resources(facts["resources"], ask), *_storage(nodes, location), *_versions(nodes)]


def _resources(there: dict[str, float], ask: Ask) -> list[str]:
    kind, wanted, count = ask.of(there)
    if wanted <= count or ask.grows:
        return []
    more = "" if count == 1 else "s"
    return [
        f"the command wants {wanted} workers of one {kind} each, and the cluster has {count} {kind}{more}: ask for "
        f"fewer (--workers), or add nodes; if the cluster grows by itself, say so: --set compute.autoscaling=true"
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
    here, found = versions(), []
    for package, ours in here.items():
        other = {node["name"]: node["versions"].get(package) for node in nodes if node["versions"].get(package) != ours}
        if other:
            name, theirs = next(iter(other.items()))
            more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
            found.append(f"{package} is {ours} here and {theirs or 'missing'} on node {name}{more}: use the same image")
    return found


def _tidy(client: Any, name: str) -> None:
    """The check leaves no trace in the list of jobs: it is stopped if it still runs, and deleted once it has ended.

    Ray's job manager looks at the process of a job once a second. If it finds the process ended and the job deleted, it
    enters the job again, as one that failed; so the list is looked at until that cannot happen any more.
    """
    end = time.monotonic() + _TIDY_S
    # What was found counts more than an entry in a list.
    with contextlib.suppress(Exception):
        if not Job.of(client.get_job_info(name)).over:
            client.stop_job(name)
        while not Job.of(client.get_job_info(name)).over and time.monotonic() < end:
            time.sleep(_POLL_S)
        time.sleep(_SETTLE_S)
        client.delete_job(name)
        time.sleep(_SETTLE_S)
        client.delete_job(name)
