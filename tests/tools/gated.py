"""A model that draws when a test lets it."""

import threading
from typing import Any

from objgan.generation import Generated, ObjGAN


class Gated(ObjGAN):
    """Waits at each picture until the gate is open; `most` is how many pictures it drew at the same time."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.gate, self.began = threading.Event(), threading.Event()
        self.now = self.most = 0

    def generate(self, *arguments: Any, **more: Any) -> list[Generated]:
        self.now += 1
        self.most = max(self.most, self.now)
        self.began.set()
        try:
            assert self.gate.wait(30), "the gate stayed closed"
            return super().generate(*arguments, **more)
        finally:
            self.now -= 1
