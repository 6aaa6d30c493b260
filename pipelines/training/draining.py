"""SIGTERM to the driver's node (a drain, an upgrade), as the driver sees it.

Kubernetes sends SIGTERM to `ray start` alone, the container's first process. Ray then marks its node as draining and
ends its processes `RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S` later; the driver, one of them, gets no signal before that.
"""

import time

import ray

from pipelines.training.supervisor import TERMINATED

_ASK_S = 1.0


class OwnNode:
    """The node that this process runs on; it asks Ray at most once a second."""

    def __init__(self) -> None:
        self._id, self._asked = ray.get_runtime_context().get_node_id(), 0.0

    def wish(self) -> str | None:
        """Why a run is to stop: its driver's node is about to be shut down. None: it is not, or Ray does not answer."""
        now = time.monotonic()
        if now - self._asked < _ASK_S:
            return None
        self._asked = now
        try:
            # Ray Train's own watcher of preemptions asks here, too; there is no public function.
            draining = ray._private.state.state.get_draining_nodes()
        except Exception:  # the control plane is away, or about to end: other deadlines apply
            return None
        return TERMINATED if self._id in draining else None
