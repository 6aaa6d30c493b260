"""Attributes: the colours of objects and the scenes of pictures, and what a caption says of them."""

from collections.abc import Mapping, Sequence

COLOURS = ("red", "blue", "green", "yellow", "orange", "purple", "pink", "white", "black", "brown")
"""The palette; a batch holds indices into it."""

SCENES = ("grass", "sea", "snow", "street")
"""What the ground of a picture is; a batch holds indices into it."""

UNKNOWN = -1
"""The index of a colour or scene that the data do not know."""

SCENE_WORDS: Mapping[str, tuple[str, ...]] = {
    "grass": ("grass", "grassy", "field", "fields", "meadow", "meadows"),
    "sea": ("sea", "ocean", "water", "beach", "sand", "sandy"),
    "snow": ("snow", "snowy"),
    "street": ("street", "streets", "road", "roads", "sidewalk", "city"),
}
"""scene -> the words of a caption that state it."""

_SCENE_OF = {word: scene for scene, words in SCENE_WORDS.items() for word in words}
_SKIES = ("sky", "skies")
_NO_PLACE = frozenset({("beach", "ball"), ("beach", "balls")})  # a thing's name, wherever it lies


def stated_scene(tokens: Sequence[str]) -> str | None:
    """The scene that a caption's tokens (see `objgan.vocabulary.tokenize`) state, None for none or for several.

    A field of snow is snow: with "snow", the words of grass say nothing.
    """
    scenes = {_SCENE_OF[token] for at, token in enumerate(tokens) if _is_place(tokens, at)}
    if "snow" in scenes:
        scenes.discard("grass")
    return scenes.pop() if len(scenes) == 1 else None


def stated_colours(tokens: Sequence[str]) -> set[str]:
    """The palette's colours that a caption's tokens give to anything but the place ("a blue sky", "a green field")."""
    return {token for at, token in enumerate(tokens) if token in COLOURS and not _is_surrounding(tokens, at + 1)}


def colour_index(name: str | None) -> int:
    """Index into `COLOURS`, `UNKNOWN` for None and for a name that is not of the palette."""
    return COLOURS.index(name) if name in COLOURS else UNKNOWN


def scene_index(name: str | None) -> int:
    """Index into `SCENES`, `UNKNOWN` for None and for a name that is no scene."""
    return SCENES.index(name) if name in SCENES else UNKNOWN


def _is_surrounding(tokens: Sequence[str], at: int) -> bool:
    """Whether token `at` is there and names the ground or the sky."""
    return _is_place(tokens, at) or (at < len(tokens) and tokens[at] in _SKIES)


def _is_place(tokens: Sequence[str], at: int) -> bool:
    """Whether token `at` is there and says where, not what."""
    return at < len(tokens) and tokens[at] in _SCENE_OF and tuple(tokens[at : at + 2]) not in _NO_PLACE
