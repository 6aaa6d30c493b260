"""Prompts whose numbers and relations are known, from a JSON file: NSR-1K's, or one's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from objgan.errors import InputError, shown, unknown
from objgan.files import read_json
from objgan.metrics.prompts import StatedPrompt
from objgan.statements import ABOVE, BELOW, FEWER, LEFT, MORE, NEXT_TO, RIGHT, Comparison, Count, Relation, Statements
from objgan.vocabulary import LONGEST_CAPTION

_Text = Annotated[str, Field(min_length=1, max_length=LONGEST_CAPTION)]
_Number = Annotated[int, Field(ge=0, le=1000)]
_Word = Literal["left", "right", "above", "top", "below", "bottom", "next to"]
_WORDS = {LEFT: LEFT, RIGHT: RIGHT, "above": ABOVE, "top": ABOVE, "below": BELOW, "bottom": BELOW, NEXT_TO: NEXT_TO}


class _Form(BaseModel):
    model_config = ConfigDict(strict=True)
    prompt: _Text


class _Own(_Form):
    model_config = ConfigDict(extra="forbid")
    counts: dict[_Text, _Number] = {}
    relations: list[Annotated[tuple[_Text, _Word, _Text], Field(strict=False)]] = []

    def entry(self) -> "_Entry":
        return _Entry(self.prompt, tuple(self.counts.items()), tuple(self.relations))


class _Counting(_Form):
    num_object: list[Annotated[tuple[_Text, _Number], Field(strict=False)]]
    kind: str = Field("", alias="sub-type")

    def entry(self) -> "_Entry":
        return _Entry(self.prompt, tuple(self.num_object), compares=self.kind == "comparison")


class _Spatial(_Form):
    obj1: Annotated[tuple[_Text, Any], Field(strict=False)]
    obj2: Annotated[tuple[_Text, Any], Field(strict=False)]
    relation: _Word

    def entry(self) -> "_Entry":
        return _Entry(self.prompt, relations=((self.obj1[0], self.relation, self.obj2[0]),))


@dataclass(frozen=True)
class _Entry:
    """A prompt in names of classes. compares: only the first number and the order of the two are stated."""

    prompt: str
    counts: tuple[tuple[str, int], ...] = ()
    relations: tuple[tuple[str, str, str], ...] = ()
    compares: bool = False


@dataclass(frozen=True)
class PromptsFile:
    """The prompts of a file, before a model's classes are known."""

    path: Path
    entries: tuple[_Entry, ...]

    def prompts(self, classes: Sequence[str]) -> list[StatedPrompt]:
        """The prompts in labels of these classes.

        Raises:
            InputError: a class that is not among them.
        """
        labels = {name: label for label, name in enumerate(classes)}
        return [_prompt(entry, labels, _where(self.path, number)) for number, entry in enumerate(self.entries, 1)]


NO_PROMPTS = PromptsFile(Path(), ())


def read_prompts_file(path: Path) -> PromptsFile:
    """Read a list of entries: NSR-1K's (`num_object`, or `obj1`, `obj2` and `relation`), or `prompt`, `counts` and
    `relations`.

    Raises:
        InputError: no such file, no JSON, no such list, or an entry of another form; it names the entry.
    """
    content = read_json(path, "--prompts")
    if not isinstance(content, list) or not content:
        raise InputError(f"--prompts: {path} must hold a list of prompts, got {shown(content)}")
    return PromptsFile(path, tuple(_read(entry, _where(path, number)) for number, entry in enumerate(content, 1)))


def _where(path: Path, number: int) -> str:
    return f"--prompts: {path}: entry {number}: "


def _read(content: Any, where: str) -> _Entry:
    if not isinstance(content, dict):
        raise InputError(f'{where}must be {{"prompt": ..., "counts": ..., "relations": ...}}, got {shown(content)}')
    form: type[_Own | _Counting | _Spatial] = _Own
    if "num_object" in content:
        form = _Counting
    elif "obj1" in content:
        form = _Spatial
    try:
        entry = form.model_validate(content).entry()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}{shown(place)[1:-1]}: {first['msg']}, got {shown(first['input'])}") from None
    if not entry.counts and not entry.relations:
        raise InputError(f"{where}states nothing: give counts or relations")
    if len({name for name, _ in entry.counts}) < len(entry.counts) or (entry.compares and len(entry.counts) != 2):
        raise InputError(f"{where}num_object must name each class once, and a comparison two classes")
    return entry


def _prompt(entry: _Entry, labels: Mapping[str, int], where: str) -> StatedPrompt:
    def label(name: str) -> int:
        if name not in labels:
            raise unknown("class", name, labels, where)
        return labels[name]

    counts = tuple(Count(label(name), number, number) for name, number in entry.counts)
    relations = tuple(Relation(label(one), _WORDS[word], label(other)) for one, word, other in entry.relations)
    if not entry.compares:
        return StatedPrompt(entry.prompt, counts, Statements(counts, (), relations))
    first, second = counts
    if first.low == second.low:
        return StatedPrompt(entry.prompt, (), Statements(counts))
    comparison = Comparison(first.label, MORE if first.low > second.low else FEWER, second.label)
    return StatedPrompt(entry.prompt, (), Statements((first,), (comparison,)))
