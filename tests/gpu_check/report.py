"""What was found, as lines of a table and as JSON."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from objgan.files import write_atomically

Verdict = Literal["ok", "FAILED", "measured", "needs a GPU", "left out"]
_PACKAGES = ("torch", "torchvision", "numpy")


@dataclass(frozen=True)
class Finding:
    """One line: what was asked of which stage in which form, and the answer. figures: by name, for the JSON."""

    recipe: str
    stage: str
    check: str
    form: str
    verdict: Verdict
    detail: str = ""
    figures: dict[str, float | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As a failure is named."""
        return " ".join(part for part in (self.recipe, self.stage, self.check, self.form) if part)


HEADER = f"{'recipe':<7}{'stage':<10}{'check':<21}{'form':<22}{'':<13}"


def line(finding: Finding) -> str:
    """A line of the table."""
    cells = f"{finding.recipe:<7}{finding.stage:<10}{finding.check:<21}{finding.form:<22}{finding.verdict:<13}"
    return f"{cells}{finding.detail}".rstrip()


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures depend on."""
    facts: dict[str, Any] = {
        "device": "CPU",
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        facts |= {"device": card.name, "memory_gb": card.total_memory / 1e9, "cuda": torch.version.cuda}
    return facts


def write(path: Path, device: torch.device, findings: Sequence[Finding]) -> None:
    """All findings as JSON."""
    facts = {"at": datetime.now(UTC).isoformat(), **machine(device), "findings": [asdict(one) for one in findings]}
    write_atomically(path, json.dumps(facts, indent=1) + "\n")
