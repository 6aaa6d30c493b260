"""Protocols: what an evaluation measures on. Measures end with its name, as in `from_captions/soa_c_test`.

Rows are ways to an image: from the caption alone (predicted boxes and shapes), from true boxes (predicted shapes), from
true layouts (boxes and shapes). `true_images` are the real ones: what a measure can give at best, its ceiling.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from objgan.errors import unknown

FROM_CAPTIONS, FROM_BOXES, FROM_LAYOUTS, TRUE_IMAGES = "from_captions", "from_boxes", "from_layouts", "true_images"
GENERATED = (FROM_CAPTIONS, FROM_BOXES, FROM_LAYOUTS)


@dataclass(frozen=True)
class Place:
    """One image to generate: for the reader's sample `index`, with its caption `number` (0 is everyone's first)."""

    index: int
    number: int


@dataclass(frozen=True)
class Protocol:
    """Which images of which split, and the sizes that a measure depends on.

    images:           images of a row; None: the split's, each once
    exact:            a row has exactly `images`, with several captions an image where the split is smaller; otherwise
                      at most so many, each once
    pool:             captions to choose from in R-precision, the own one among them
    diverse_captions: the first captions are drawn `diverse_samples` times, for diversity
    """

    name: str
    split: str = "test"
    images: int | None = None
    exact: bool = False
    pool: int = 100
    diverse_captions: int = 20
    diverse_samples: int = 4

    def places(self, length: int) -> list[Place]:
        """The images of a row, where the split has `length` usable ones: all images once before any comes again."""
        asked = length if self.images is None else self.images
        number = asked if self.exact else min(asked, length)
        return [Place(at % length, at // length) for at in range(number)]

    def limit(self, length: int) -> int:
        """How many of `length` true images take part."""
        return min(length, length if self.images is None else self.images)


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("test"),
        Protocol("quick", images=100, diverse_captions=10),
        Protocol("validation", split="validation"),
        Protocol("1k", images=1000, exact=True, diverse_captions=50),
        Protocol("30k", images=30000, exact=True, diverse_captions=200),
    )
}


def protocol(name: str) -> Protocol:
    """A protocol by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
