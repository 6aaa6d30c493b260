import errno
import json

import pytest

from objgan.errors import InputError
from pipelines.storage.attempts import WorkerDied
from pipelines.storage.retry import StorageAway, StorageRefused
from pipelines.storage.worker_faults import FAULTS, as_facts, raise_fault


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InputError("a wrong file"), InputError),
        (StorageRefused("no right"), StorageRefused),
        (WorkerDied("three workers died"), WorkerDied),
        (StorageAway("no answer"), StorageAway),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), OSError),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), FileNotFoundError),
    ],
)
def test_a_fault_of_a_worker_reaches_the_driver_as_it_was(error: Exception, kind: type[Exception]) -> None:
    assert isinstance(error, FAULTS)
    with pytest.raises(kind) as caught:
        raise_fault(json.loads(json.dumps(as_facts(error))))
    assert type(caught.value) is kind and str(caught.value) == str(error)
    if isinstance(error, OSError):
        assert (caught.value.errno, caught.value.filename) == (error.errno, error.filename)  # type: ignore[attr-defined]


def test_a_report_of_success_raises_nothing() -> None:
    raise_fault({"pictures": 3})
