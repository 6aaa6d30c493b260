"""Section `sample_images`: are objects, colours and backgrounds right on the drawn sample, after 40 minutes?"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipelines.evaluation.judges import JUDGE, SECOND_ENCODERS
from pipelines.evaluation.protocols import FROM_BOXES, FROM_CAPTIONS, FROM_LAYOUTS, TRUE_IMAGES
from tests.benchmarks.learn.rows import Cell, Log, Options, Row
from tests.benchmarks.learn.sample_runs import EARLIER, SampleRuns, clock, figures, timed

NAME = "sample_images"
TITLE = "Images of the drawn sample"
MINUTES = 40.0

MEASURES = ("object_accuracy", "told_colour_accuracy", "scene_accuracy")
"""Colours of objects whose colour the caption states; from captions alone `colour_accuracy` is of these anyway."""
GOALS: dict[str, tuple[str, tuple[float, ...]]] = {
    FROM_LAYOUTS: ("true boxes and shapes", (0.85, 0.85, 0.95)),
    FROM_BOXES: ("true boxes, predicted shapes", (0.75, 0.70, 0.95)),
    FROM_CAPTIONS: ("captions alone", (0.75, 0.70, 0.95)),
}
"""For each way to an image: what it is made from, and the goals for `MEASURES`."""
R_PRECISION_GOAL = 0.95
"""Share of the true images' own R-precision."""


def cells(options: Options) -> list[Cell]:
    """A cell a training, then the evaluation."""
    runs = SampleRuns(options.out)
    minutes = MINUTES if options.run_minutes is None else options.run_minutes
    return [
        Cell("data", partial(_data, runs)),
        *(Cell(name, partial(_trained, partial(runs.stage, name))) for name in EARLIER),
        *(Cell(name, partial(_trained, partial(runs.judge, name))) for name in (SECOND_ENCODERS, JUDGE)),
        Cell("images", partial(_images, runs, minutes)),
        Cell("evaluation", partial(_evaluation, runs, minutes)),
    ]


def table(rows: dict[str, Row]) -> str:
    """Accuracies beside their goals, then where the time went."""
    parts = [_accuracies(rows["evaluation"]) if "evaluation" in rows else "Not evaluated yet.", _times(rows)]
    return "\n\n".join(part for part in parts if part)


def _data(runs: SampleRuns, folder: Path, log: Log) -> Row:
    _, seconds = clock(partial(runs.data, log))
    return {"seconds": round(seconds, 1), "pictures": runs.pictures}


def _trained(train: Callable[[Log], object], folder: Path, log: Log) -> Row:
    return timed(train(log))  # type: ignore[arg-type]


def _images(runs: SampleRuns, minutes: float | None, folder: Path, log: Log) -> Row:
    return timed(runs.images(runs.config, folder, minutes, log)) | {"minutes": minutes}


def _evaluation(runs: SampleRuns, minutes: float | None, folder: Path, log: Log) -> Row:
    fitted = runs.images(runs.config, runs.folder("images"), minutes, log)
    measured, seconds = clock(partial(runs.measure, runs.config, fitted.checkpoint, folder, log))
    return {
        "seconds": round(seconds, 1),
        "step": fitted.step,
        "figures": figures(measured),
        "skipped": measured.skipped,
    }


def _accuracies(row: Row) -> str:
    """Markdown: a row a way to an image, goals in brackets."""
    found = row["figures"]
    heads = ("from", "objects", "stated colours", "backgrounds", "R-precision", "of the true images'", "all colours")
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for name, (title, goals) in GOALS.items():
        pairs = zip(_measures(name), goals, strict=True)
        shares = [_share(found.get(f"{name}/{measure}"), goal) for measure, goal in pairs]
        every = "–" if name == FROM_CAPTIONS else _share(found.get(f"{name}/colour_accuracy"), None)
        lines.append(f"| {title} | {' | '.join([*shares, *_retrieval(found, name)])} | {every} |")
    every = _share(found.get(f"{TRUE_IMAGES}/colour_accuracy"), None)
    for title, names in (
        ("the true images", MEASURES),
        ("the true images, as their captions state", tuple(f"stated_{name}" for name in _measures(FROM_CAPTIONS))),
    ):
        shown = [_share(found.get(f"{TRUE_IMAGES}/{name}"), None) for name in (*names, "r_precision")]
        lines.append(f"| {title} | {' | '.join(shown)} | | {every if names == MEASURES else '–'} |")
    notes = [
        "Test split, a judge that no generator was trained with; 95 % intervals; in brackets the goal, and whether it "
        "was met. From captions alone, what counts is what the caption states. Stated colours: of the objects whose "
        "class and colour the caption states; all colours: those of the others, too, at which one can only guess."
    ]
    notes += [f"Not measured: {name} ({why})." for name, why in row.get("skipped", {}).items()]
    return "\n".join([*lines, "", *notes])


def _measures(row: str) -> tuple[str, ...]:
    return tuple(name.removeprefix("told_") for name in MEASURES) if row == FROM_CAPTIONS else MEASURES


def _retrieval(found: dict[str, Row], name: str) -> list[str]:
    """R-precision, and its share of the true images'."""
    ours, true = found.get(f"{name}/r_precision"), found.get(f"{TRUE_IMAGES}/r_precision")
    if ours is None or true is None or not true["value"]:
        return [_share(ours, None), "–"]
    share = ours["value"] / true["value"]
    return [_share(ours, None), f"{100 * share:.0f} % ({_verdict(share, R_PRECISION_GOAL)})"]


def _share(one: Row | None, goal: float | None) -> str:
    if one is None or one["value"] is None:
        return "–" if goal is None else f"– (≥ {100 * goal:.0f})"
    low_high = one["interval"]
    spread = "" if not low_high else f" [{100 * low_high[0]:.1f}, {100 * low_high[1]:.1f}]"
    return f"{100 * one['value']:.1f} %{spread}" + ("" if goal is None else f" ({_verdict(one['value'], goal)})")


def _verdict(value: float, goal: float) -> str:
    return f"≥ {100 * goal:.0f}: {'met' if value >= goal else 'missed'}"


def _times(rows: dict[str, Row]) -> str:
    """Markdown: seconds of training, step and threads of every cell."""
    names = ["data", *EARLIER, SECOND_ENCODERS, JUDGE, "images", "evaluation"]
    lines = ["| part | minutes | step | threads |", "| --- | --- | --- | --- |"]
    for name in names:
        row = rows.get(name)
        if row is None:
            lines.append(f"| {name} | not yet | | |")
        else:
            lines.append(f"| {name} | {row['seconds'] / 60:.1f} | {row.get('step', '')} | {row.get('threads', '')} |")
    return "\n".join(lines)
