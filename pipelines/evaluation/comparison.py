"""Challenger and champion measured under the same conditions, and the report: one HTML page without scripts."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from objgan.picture import png
from pipelines.evaluation.evaluate import Runner, evaluate, run_on_ray
from pipelines.evaluation.gate import Key, Rules, Verdict, decide, extremes
from pipelines.evaluation.rows import picture_of_rows
from pipelines.evaluation.worker import Evaluation, OpenEvaluation
from pipelines.runs.status import JobStatus

_CASES = 4


@dataclass(frozen=True)
class Cases:
    """Pictures of the same captions by two models, under a title."""

    title: str
    challenger: Image.Image
    champion: Image.Image


@dataclass(frozen=True)
class Comparison:
    """A verdict, with pictures of the samples in which the models differ most; none without a champion.

    data: digest of the data
    """

    verdict: Verdict
    cases: tuple[Cases, ...]
    data: str

    def html(self, facts: Sequence[tuple[str, str]]) -> str:
        """The report. facts: name and value of models, data, ..., for its head. Jinja escapes all text."""
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, undefined=StrictUndefined
        )
        environment.filters["png"] = _data
        return environment.get_template("comparison.html").render(report=self, facts=facts)


def compare(
    evaluation: Evaluation,
    champion: Path | None,
    rules: Rules,
    runner: Runner = run_on_ray,
    job_status: JobStatus | None = None,
) -> Comparison:
    """Measure the evaluation's model and the champion on the same captions with the same noise; check the rules.

    champion: folder of a model; None: the rules' baselines take its place

    Raises:
        InputError: the data do not fit a model, or a rule names a metric that was not measured.
    """
    models = [evaluation.model, *([] if champion is None else [champion])]
    opened = [OpenEvaluation(replace(evaluation, model=model), device="cpu") for model in models]
    results = [evaluate(one, runner, job_status) for one in opened]
    verdict = decide(results[0], results[1] if results[1:] else None, rules, evaluation.seed)
    digest = opened[0].sources.data.manifest["digest"]
    if champion is None:
        return Comparison(verdict, (), digest)
    best, worst = extremes(results[0], results[1], [finding.metric for finding in verdict.findings], _CASES)
    named = (("Best cases", best), ("Worst cases", worst))
    cases = tuple(_draw(title, opened, keys) for title, keys in named if keys)
    return Comparison(verdict, cases, digest)


@torch.no_grad()
def _draw(title: str, opened: Sequence[OpenEvaluation], keys: Sequence[Key]) -> Cases:
    """The rows of both models for these samples, with the evaluation's noise."""
    pictures = []
    for evaluation in opened:
        rows = evaluation.sources.rows
        places = {(rows.image_id(place.index), place.number): place for place in evaluation.places}
        pictures.append(picture_of_rows(evaluation.synthesis, evaluation.prompts([places[key] for key in keys])))
    return Cases(title, *pictures)


def _data(image: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"
