"""What can be in a scene: the kinds of objects with their sizes, colours and places, and the palette."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from objgan.attributes import SCENES
from pipelines.data.sample.pen import Colour

PALETTE: Mapping[str, Colour] = {
    "red": (226, 42, 44),
    "blue": (38, 92, 222),
    "green": (30, 160, 70),
    "yellow": (250, 208, 32),
    "orange": (248, 132, 22),
    "purple": (134, 56, 186),
    "pink": (248, 120, 178),
    "white": (246, 244, 238),
    "black": (44, 44, 52),
    "brown": (140, 84, 44),
}
_BRIGHT = ("red", "blue", "green", "yellow", "orange", "purple", "pink")

BACKGROUNDS = SCENES
SKIES = ("blue", "cloudy", "sunset")

POOR_CONTRAST: Mapping[str, frozenset[str]] = {
    "grass": frozenset({"green"}),
    "water": frozenset({"blue"}),
    "sand": frozenset({"yellow", "orange", "brown"}),
    "snow": frozenset({"white"}),
    "road": frozenset({"black"}),
    "pavement": frozenset(),
    "wall": frozenset({"brown", "orange"}),
    "blue sky": frozenset({"blue", "white"}),
    "cloudy sky": frozenset({"white"}),
    "sunset sky": frozenset({"orange", "pink", "yellow"}),
}
"""Colours that are hard to see, by the zone of the picture an object is in."""


@dataclass(frozen=True)
class Kind:
    """One drawable COCO category.

    `height` is the usual height as a fraction of sqrt(image width x height), `aspect` width / height. `zones` says for
    each background in which parts of it the object may be; a background left out never has it. No `colours`: the
    object looks as it always does. `crowd` objects also come in heaps too dense to count. `weight` is how often it is
    chosen where it may be.
    """

    name: str
    height: float
    aspect: float
    zones: Mapping[str, tuple[str, ...]] = field(repr=False)
    colours: tuple[str, ...] = ()
    crowd: bool = False
    weight: float = 1.0


_FLYING = {"grass": ("sky",), "sea": ("sky",), "snow": ("sky",), "street": ("sky",)}
_WALKING = {"grass": ("grass",), "sea": ("sand",), "snow": ("snow",), "street": ("pavement",)}
_DRIVING = {"grass": ("grass",), "snow": ("snow",), "street": ("road",)}
_GRAZING = {"grass": ("grass",), "snow": ("snow",)}
_TOY = {"grass": ("grass", "sky"), "sea": ("sand", "sky"), "snow": ("snow", "sky"), "street": ("road", "sky")}

KINDS: tuple[Kind, ...] = (
    Kind("person", 0.40, 0.44, _WALKING, _BRIGHT, crowd=True),
    Kind("car", 0.27, 1.7, _DRIVING, (*_BRIGHT, "white", "black"), weight=1.6),
    Kind("airplane", 0.21, 1.9, _FLYING, ("red", "blue", "yellow", "white", "green", "purple")),
    Kind("boat", 0.42, 0.95, {"sea": ("water",)}, (*_BRIGHT, "white", "black"), weight=4.0),
    Kind("traffic light", 0.48, 0.38, {"street": ("pavement",), "snow": ("snow",)}, weight=1.5),
    Kind("stop sign", 0.46, 0.58, {"street": ("pavement",), "grass": ("grass",), "snow": ("snow",)}),
    Kind("bench", 0.24, 1.6, _WALKING, ("brown", "red", "blue", "green", "purple")),
    Kind("bird", 0.22, 1.2, _FLYING, ("red", "blue", "yellow", "black", "white", "orange"), crowd=True),
    Kind("dog", 0.27, 1.2, _WALKING, ("brown", "black", "white")),
    Kind("sheep", 0.27, 1.25, _GRAZING, ("white", "black"), crowd=True, weight=1.5),
    Kind("cow", 0.32, 1.3, _GRAZING, ("brown", "black", "white"), weight=1.5),
    Kind("umbrella", 0.36, 1.0, _WALKING, _BRIGHT),
    Kind("frisbee", 0.24, 1.0, _TOY, (*_BRIGHT, "white")),
    Kind("sports ball", 0.23, 1.0, _TOY, _BRIGHT),
    Kind("kite", 0.34, 0.68, _FLYING, _BRIGHT, crowd=True),
    Kind("pizza", 0.27, 1.0, _WALKING),
    Kind("clock", 0.28, 1.0, {"street": ("wall",), "grass": ("grass",), "snow": ("snow",)}, (*_BRIGHT, "black")),
)
KIND: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}
