"""Protocols: the images of an evaluation. A metric's name ends with the protocol's, as in `from_captions/soa_c_test`.

A row is a way to an image: from the caption alone (predicted boxes and shapes), from true boxes (predicted shapes), or
from true layouts (boxes and shapes). The metrics of `true_images` are the ceiling of the other rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from objgan.errors import unknown

FROM_CAPTIONS, FROM_BOXES, FROM_LAYOUTS, TRUE_IMAGES = "from_captions", "from_boxes", "from_layouts", "true_images"
GENERATED = (FROM_CAPTIONS, FROM_BOXES, FROM_LAYOUTS)


@dataclass(frozen=True)
class Place:
    """One image to generate: for the reader's sample `index`, with its caption `number`, from 0."""

    index: int
    number: int


@dataclass(frozen=True)
class Protocol:
    """The images of a split, and the sizes on which metrics depend.

    images:           images of a row; None: all of the split, each once
    exact:            a row has exactly `images`, with several captions for an image if the split is smaller; otherwise
                      at most `images`, each once
    pool:             captions in the pool of R-precision, including the image's own
    diverse_captions: the first captions, which are drawn `diverse_samples` times, for diversity
    """

    name: str
    split: str = "test"
    images: int | None = None
    exact: bool = False
    pool: int = 100
    diverse_captions: int = 20
    diverse_samples: int = 4

    def places(self, length: int) -> list[Place]:
        """The images of a row from a split of `length` usable images: every image once before any is repeated."""
        images = length if self.images is None else self.images
        number = images if self.exact else min(images, length)
        return [Place(index % length, index // length) for index in range(number)]

    def limit(self, length: int) -> int:
        """Number of true images that are measured, of `length`."""
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
        InputError: no protocol has this name.
    """
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
