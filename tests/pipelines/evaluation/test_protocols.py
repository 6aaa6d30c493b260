"""The images and captions of a protocol."""

import pytest

from objgan.errors import InputError
from pipelines.evaluation.protocols import PROTOCOLS, Place, Protocol, protocol


def test_every_image_is_used_once_up_to_the_limit() -> None:
    assert Protocol("all").places(3) == [Place(0, 0), Place(1, 0), Place(2, 0)]
    assert len(Protocol("some", images=2).places(3)) == 2
    assert len(Protocol("some", images=5).places(3)) == 3


def test_an_exact_number_uses_every_image_once_before_it_repeats_any() -> None:
    places = Protocol("five", images=5, exact=True).places(2)
    assert places == [Place(0, 0), Place(1, 0), Place(0, 1), Place(1, 1), Place(0, 2)]
    assert Protocol("five", images=5, exact=True).limit(2) == 2


def test_names_are_unique_and_unknown_names_are_rejected() -> None:
    assert all(name == entry.name for name, entry in PROTOCOLS.items())
    assert len(protocol("30k").places(5000)) == 30000
    with pytest.raises(InputError, match="unknown protocol 'all': choose one of test, quick"):
        protocol("all")
