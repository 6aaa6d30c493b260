"""Which images take part, and which captions of them."""

import pytest

from objgan.errors import InputError
from pipelines.evaluation.protocols import PROTOCOLS, Place, Protocol, protocol


def test_a_split_goes_once_and_no_more_than_asked() -> None:
    assert Protocol("all").places(3) == [Place(0, 0), Place(1, 0), Place(2, 0)]
    assert len(Protocol("some", images=2).places(3)) == 2
    assert len(Protocol("some", images=5).places(3)) == 3


def test_an_exact_number_takes_every_image_once_before_any_comes_again() -> None:
    places = Protocol("five", images=5, exact=True).places(2)
    assert places == [Place(0, 0), Place(1, 0), Place(0, 1), Place(1, 1), Place(0, 2)]
    assert Protocol("five", images=5, exact=True).limit(2) == 2


def test_names_are_unique_and_those_unknown_are_refused() -> None:
    assert all(name == one.name for name, one in PROTOCOLS.items())
    assert len(protocol("30k").places(5000)) == 30000
    with pytest.raises(InputError, match="unknown protocol 'all': choose one of test, quick"):
        protocol("all")
