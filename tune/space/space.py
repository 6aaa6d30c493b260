"""A search space: the ranges of settings, by dotted name, and how values are drawn and applied."""

import hashlib
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from objgan.config import Config, build_config
from pipelines.recipes import merge


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """The tree with other values by dotted name; a length in steps replaces one in epochs.

    Raises:
        InputError: an unknown setting, or a value or combination that objgan refuses.
    """
    values = config.model_dump()
    for name, value in settings.items():
        for part in reversed(name.split(".")):
            value = {part: value}
        merge(values, value)
    return build_config(values)


@dataclass(frozen=True)
class Knob:
    """One setting's range.

    kind:   log_uniform and uniform: floats in [low, high); integer and log_integer: whole numbers in [low, high];
            choice: of `values`
    step:   values are low, low + step, ...; None: any value
    when:   the setting is searched only in trials in which each of these settings has one of these values
    reason: why this range was chosen
    """

    kind: Literal["log_uniform", "uniform", "integer", "log_integer", "choice"]
    low: float = 0.0
    high: float = 0.0
    values: tuple[Any, ...] = ()
    reason: str = ""
    step: float | None = None
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def log(self) -> bool:
        """Whether the range is logarithmic."""
        return self.kind.startswith("log_")

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return self.kind.endswith("integer")

    def contains(self, value: Any) -> bool:
        """Whether a value lies in the range, or is one of the choices."""
        if self.kind == "choice":
            return among(value, self.values)
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def snap(self, value: float) -> float:
        """The nearest value of the range, on its grid if it has a step."""
        if self.step is not None:
            last = math.floor((self.high - self.low) / self.step + 1e-9)
            count = min(max(round((value - self.low) / self.step), 0), last)
            # 12 digits: 0.1 + 2 * 0.1 is 0.3.
            value = float(f"{self.low + count * self.step:.12g}")
        return min(max(round(value) if self.whole else value, self.low), self.high)

    def draw(self, source: random.Random) -> Any:
        """A random value."""
        if self.kind == "choice":
            return self.values[source.randrange(len(self.values))]
        if self.kind == "integer" and self.step is None:
            return source.randint(int(self.low), int(self.high))
        # Rounding gives the first and the last whole number their share.
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        if self.step is not None and not self.log:
            low, high = self.low - self.step / 2, self.snap(self.high) + self.step / 2
        value = math.exp(source.uniform(math.log(low), math.log(high))) if self.log else source.uniform(low, high)
        if self.whole or self.step is not None:
            value = self.snap(value)
        return int(value) if self.whole else value


@dataclass(frozen=True)
class Space:
    """Knobs by the dotted name that `--set` takes."""

    knobs: Mapping[str, Knob]

    def ordered(self) -> list[str]:
        """Names in an order in which conditions come before the settings that depend on them.

        Raises:
            ValueError: conditions form a circle.
        """
        left, names = sorted(self.knobs), list[str]()
        while left:
            ready = [name for name in left if not set(self.knobs[name].when) & set(left)]
            if not ready:
                raise ValueError(f"the conditions of {', '.join(left)} form a circle")
            names += ready
            left = [name for name in left if name not in ready]
        return names

    def acts(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Whether the conditions of a knob hold: each setting that it names is searched, and has one of the values."""
        when = self.knobs[name].when
        return all(other in settings and among(settings[other], values) for other, values in when.items())

    def draw(self, seed: int, number: int) -> dict[str, Any]:
        """Random settings. Each knob has its own stream of numbers, so a further knob does not change them."""
        settings: dict[str, Any] = {}
        for name in self.ordered():
            if self.acts(name, settings):
                settings[name] = self.draw_one(name, seed, number)
        return dict(sorted(settings.items()))

    def draw_one(self, name: str, seed: int, number: int) -> Any:
        """A random value of one knob."""
        return self.knobs[name].draw(random.Random(seed_of(seed, number, name)))


def seed_of(seed: int, number: int, name: str) -> int:
    """A seed for one purpose of one trial."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}/{name}".encode()).digest()[:8], "big")


def among(value: Any, others: tuple[Any, ...] | list[Any]) -> bool:
    """Whether a value is one of others; for Python, true equals 1."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in others)
