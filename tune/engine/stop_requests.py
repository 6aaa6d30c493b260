"""The actor in which a sweep's driver asks its trials to stop. It imports nothing: its process starts at once."""


class StopRequests:
    """The actor in which the driver leaves requests to stop for its trials, and trials leave their errors."""

    def __init__(self) -> None:
        self._requests: dict[str, str] = {}
        self._crashes: dict[str, str] = {}
        self._all: str | None = None

    def end(self, trial: str, reason: str) -> None:
        """Request that one trial saves a checkpoint and stops."""
        self._requests.setdefault(trial, reason)

    def end_all(self, reason: str) -> None:
        """Request it of all trials, also of future ones."""
        self._all = self._all or reason

    def begin(self, trial: str) -> str | None:
        """A trial starts or resumes: drop earlier requests to it. Returns why it must not start; None: it may."""
        self._requests.pop(trial, None)
        return self._all

    def crash(self, trial: str, why: str) -> None:
        """Record the error that is about to end a trial's process."""
        self._crashes[trial] = why

    def take_crash(self, trial: str) -> str | None:
        """Take the recorded error; None: there is none."""
        return self._crashes.pop(trial, None)

    def reason(self, trial: str) -> str | None:
        """Why a trial has to stop; None: it does not."""
        return self._all or self._requests.get(trial)
