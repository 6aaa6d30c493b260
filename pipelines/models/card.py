"""The model card: what a registered model is, in Markdown for people.

The whole card is `README.md` of the MLflow model; a short one is the description of the version. What others write
below the card, such as `promote`, is kept.
"""

import importlib.metadata
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from objgan.checkpoint import read_config
from objgan.config import Config, flatten
from objgan.domain import Domain
from objgan.model_folder import read_facts
from pipelines.redaction import redact
from pipelines.runtime.markdown import escaped

FILE = "README.md"
LICENCE = "Apache-2.0"
END = "Written by `python -m pipelines`; keep your own notes below this line."
MOST_DESCRIPTION = 5000
"""Characters of a description in MLflow's databases."""
_MOST_CARD = 3500
_SHORTER = ((25, 20), (12, 8), (6, 3), (0, 1))
"""Numbers of measures and of lines about the source, for a description that would be too long."""
_SETTINGS = ("recipe", "seed", "data.language", "data.image_size", "data.shapes", "data.max_objects", "data.max_words")
_TRAINING = ("steps", "epochs", "batch_size")
_CPU = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Measured:
    """What `measures.json` of an evaluation says.

    data: digest of the data
    place, rows: their location and the images of each split, if known, which the file lacks
    """

    protocol: str
    data: str
    seed: int
    values: Mapping[str, float]
    counts: Mapping[str, int]
    intervals: Mapping[str, Sequence[float] | None]
    place: str = ""
    rows: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """From the content of the file; earlier versions of `evaluate` wrote less."""
        return cls(
            record["protocol"],
            record.get("data_digest", ""),
            record.get("seed", 0),
            record["measures"],
            record.get("samples", {}),
            record.get("intervals", {}),
        )


@dataclass(frozen=True)
class ModelCard:
    """What the card says; `uri` is the version's, `facts` the content of `model.json`.

    stage: of a version that holds one stage's checkpoint; "" for a whole model
    """

    uri: str
    facts: Mapping[str, Any]
    config: Config
    domain: Domain
    measured: Measured | None = None
    stage: str = ""

    @classmethod
    def of(cls, uri: str, folder: Path, measured: Measured | None = None) -> Self:
        """Of the model in a folder."""
        return cls(uri, read_facts(folder), read_config(folder), Domain.load(folder / "domain"), measured)

    @property
    def sources(self) -> Mapping[str, Any]:
        """What the model was made of, as far as it says so."""
        return mapping(self.facts.get("sources"))

    def text(self, measures: int = 10_000, lines: int = 100) -> str:
        """The card. measures, lines: how many measures and lines about the source of the data it has, at most"""
        sections = {
            "Data": self._data(lines),
            "Settings": self._settings(),
            "Measures": self._measures(measures),
            "Limits": self._limits(),
            "Licence": self._licence(),
            "Use": self._use(),
        }
        side = self.config.data.image_size
        what = f"Obj-GAN: a caption becomes boxes, shapes, and an image of {side} x {side} pixels."
        if self.stage:
            what = f"A checkpoint of the stage `{self.stage}` of Obj-GAN, which alone generates no image."
        start = f"# {escaped(self.uri)}\n\n{what} Made with objgan {escaped(self.facts.get('objgan'))}."
        texts = (f"## {title}\n\n" + "\n".join(each) for title, each in sections.items())
        return redact("\n\n".join([start, *texts, END]))

    def short(self) -> str:
        """The card with as many measures and lines as a description holds."""
        texts = (self.text(*most) for most in ((10_000, 100), *_SHORTER))
        return next((text for text in texts if len(text) <= _MOST_CARD), f"# {escaped(self.uri)}\n\n{END}")

    def _data(self, most: int) -> Iterator[str]:
        data = mapping(self.sources.get("data_set"))
        lines = data.get("source")
        known = [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
        yield from (f"- {escaped(line)}" for line in known[:most])
        if len(known) > most:
            yield f"- and {len(known) - most} more lines in `{FILE}` of the model"
        if not known:
            yield "- source and licence: not recorded"
        for name in ("rows", "counts"):
            counts = [f"{escaped(key, 50)} {escaped(value, 20)}" for key, value in mapping(data.get(name)).items()]
            if counts:
                yield f"- {'images' if name == 'rows' else 'contents'}: {', '.join(counts[:20])}"
        yield f"- images that the layout statistics count: {self.domain.statistics.images}"
        yield f"- {len(self.domain.classes)} classes: {escaped(', '.join(self.domain.classes))}"
        yield f"- digest: {escaped(self.sources.get('data') or 'not recorded')}"

    def _settings(self) -> Iterator[str]:
        flat, stages = flatten(self.config), mapping(self.sources.get("stages"))
        names = [*_SETTINGS, *(f"{stage}.training.{name}" for stage in self.config.stages for name in _TRAINING)]
        yield "| setting | value |"
        yield "| --- | --- |"
        yield from (f"| {name} | {escaped(flat[name])} |" for name in names if flat.get(name) is not None)
        for stage in self.config.stages:
            step = mapping(stages.get(stage)).get("step")
            if step is not None:
                yield f"| {stage}: step of the checkpoint | {escaped(step)} |"

    def _measures(self, most: int) -> Iterator[str]:
        measured = self.measured
        if measured is None:
            yield "Not measured yet: `python -m pipelines evaluate --model URI`."
            return
        yield f"Protocol {escaped(measured.protocol)}, seed {measured.seed}, data {escaped(measured.data)}."
        yield "\n| measure | value | 95 % interval | n |"
        yield "| --- | --- | --- | --- |"
        for name, value in list(measured.values.items())[:most]:
            bounds = measured.intervals.get(name)
            interval = "" if bounds is None else f"{bounds[0]:.4f} to {bounds[1]:.4f}"
            yield f"| {escaped(name)} | {value:.4f} | {interval} | {measured.counts.get(name, '')} |"
        if len(measured.values) > most:
            yield f"\n{len(measured.values) - most} more measures: `{FILE}` of the model."

    def _limits(self) -> Iterator[str]:
        data, words = self.config.data, len(self.domain.vocabulary.words) - 2
        yield f"- It knows only the classes above, and at most {data.max_objects} objects of an image."
        yield f"- It knows {words} words ({escaped(data.language)}) and reads {data.max_words} of a caption."
        yield "- It has the gaps and the bias of its data: what they show rarely, it has hardly learnt."
        yield "- Intervals cover the choice of test images, not the training seed."

    def _licence(self) -> Iterator[str]:
        yield f"Code: {LICENCE}. The licences of the data (see Data) may limit the use of weights and images."

    def _use(self) -> Iterator[str]:
        if self.stage:
            yield f"`mlflow artifacts download --artifact-uri {self.uri.replace('`', '')} --dst-path FOLDER`, then"
            yield f"`python -m pipelines train {self.stage} --init-from FOLDER/checkpoint`."
            return
        yield "```python"
        yield "import mlflow"
        yield f"model = mlflow.pyfunc.load_model({self.uri.replace('`', '')!r})"
        yield f"images = model.predict({example_caption(self.domain)!r})"
        yield "```"
        torch = importlib.metadata.version("torch").split("+")[0]
        yield f"\nRequirements: `pip install -r requirements.txt`. The CPU variant (torch {torch} without CUDA):"
        yield f"`pip install -r requirements.txt --extra-index-url {_CPU}`."


def mapping(value: object) -> Mapping[str, Any]:
    """A value of somebody else's JSON, if it is an object; otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def example_caption(domain: Domain) -> str:
    """A caption with words of a model's vocabulary."""
    words = domain.vocabulary.words[2:]
    known = [name for name in domain.classes if set(name.split()) <= set(words)]
    return f"a {known[0]}" if known else words[0]


def write_card(client: Any, card: ModelCard) -> None:
    """Write the card of a version: its description, and `README.md` of its MLflow model.

    A card with measures is not replaced by one without.
    """
    name, _, number = card.uri.removeprefix("models:/").rpartition("/")
    version = client.get_model_version(name, number)
    before = version.description or ""
    if card.measured is None and END in before:
        return
    if (model_id := logged_model(version)) is not None:
        with tempfile.TemporaryDirectory(prefix="objgan-card-") as scratch:
            path = Path(scratch) / FILE
            path.write_text(card.text() + "\n", encoding="utf-8")
            client.log_model_artifact(model_id, str(path))
    client.update_model_version(name, number, with_card(before, card.short()))


def logged_model(version: Any) -> str | None:
    """The id of a version's logged model, which MLflow's database names only in the version's source."""
    match = re.fullmatch(r"models:/(m-[^/@]+)", version.source or "")
    return version.model_id or (match[1] if match else None)


def with_card(description: str, card: str) -> str:
    """A description with a new card; the text below the earlier card, or without one, stays below."""
    _, end, rest = description.partition(END)
    return _joined(card, _paragraphs(rest if end else description))


def with_line(description: str, line: str) -> str:
    """A description with a new line at its end; where it would be too long, the oldest lines below the card go."""
    card, end, rest = description.partition(END)
    return _joined(card + end, [*_paragraphs(rest), line]) if end else _joined("", [*_paragraphs(description), line])


def _paragraphs(text: str) -> list[str]:
    return [part for part in text.strip().split("\n\n") if part]


def _joined(card: str, rest: list[str]) -> str:
    while rest and len("\n\n".join([card, *rest])) > MOST_DESCRIPTION:
        rest = rest[1:]
    return "\n\n".join([card, *rest]).strip()
