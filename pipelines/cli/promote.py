"""`promote`: a comparison of a challenger with the champion, and the move of the alias."""

import contextlib
import json
from dataclasses import asdict

from objgan.errors import InputError
from objgan.files import write_atomically
from objgan.sections import ComputeConfig
from pipelines.cli import options as cli
from pipelines.cli.commands import evaluation_of, held
from pipelines.evaluation.comparison import compare
from pipelines.evaluation.gate import DEFAULT, Verdict, read_rules
from pipelines.models import CHAMPION
from pipelines.models.champion import (
    Version,
    find_champion,
    find_version,
    note_failure,
    promote_version,
    registered_name,
    roll_back,
)
from pipelines.models.generate import local_model
from pipelines.models.registry import mlflow_at
from pipelines.redaction import place_of
from pipelines.runtime.console import say
from pipelines.runtime.exit_codes import Declined
from pipelines.runtime.ray_session import check_resources, ray_session
from pipelines.storage.storage import RUNS
from pipelines.tracking.tracker import tracking_uri


def promote(options: cli.PromoteOptions) -> None:
    """Promote a challenger if it is better, or give the alias back.

    Raises:
        InputError: no such version, it is the champion already, or the alias moved meanwhile.
        Declined: the rules do not hold.
    """
    uri = tracking_uri(RUNS)
    with mlflow_at(uri) as client:
        if options.rollback:
            name = registered_name(str(options.model))
            lost, before = roll_back(client, name, options.force or "by hand")
            return say(f"{name}@{CHAMPION}: {_uri(before)}, no longer {lost.uri}")
        new = find_version(client, str(options.model))
        champion = find_champion(client, new.name)
    if new == champion:
        raise InputError(f"{new.uri} is the champion already: give another version")
    verdict = _compare(options, new, champion, uri)
    with mlflow_at(uri) as client:
        if not verdict.passed and options.force is None:
            note_failure(client, new, verdict.reason())
            raise Declined(f"{new.uri} is not promoted: {verdict.reason()}")
        status, why = ("passed", verdict.reason()) if verdict.passed else ("forced", str(options.force))
        promote_version(client, new, champion, status, why)
    say(f"{new.name}@{CHAMPION}: {new.uri} in place of {_uri(champion)}")


def _compare(options: cli.PromoteOptions, new: Version, champion: Version | None, uri: str) -> Verdict:
    """Measure both models, and write the report."""
    rules = read_rules(options.rules) if options.rules else DEFAULT
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        evaluation = enter(evaluation_of(options, new.uri, uri))
        other = enter(local_model(champion.uri, uri)) if champion else None
        job_status = enter(held(options, "promote"))
        enter(ray_session(options.address))
        check_resources(ComputeConfig(workers=options.workers, device="cpu"))
        done = compare(evaluation, other, rules, job_status=job_status)
        facts = {
            "challenger": new.uri,
            "champion": _uri(champion),
            "data": place_of(str(options.data)),
            "data_digest": done.data,
            "protocol": options.protocol,
            "seed": str(options.seed),
        }
        write_atomically(options.out / "promotion.html", done.html(list(facts.items())))
        write_atomically(options.out / "promotion.json", _json(done.verdict, facts))
    say(done.verdict.text())
    say(f"report: {options.out / 'promotion.html'}")
    return done.verdict


def _uri(version: Version | None) -> str:
    return version.uri if version else "no version"


def _json(verdict: Verdict, facts: dict[str, str]) -> str:
    rules = [asdict(finding) | {"holds": finding.holds} for finding in verdict.findings]
    return json.dumps(facts | {"passed": verdict.passed, "reason": verdict.reason(), "rules": rules}, indent=1) + "\n"
