"""The forms in which a step is computed, and how far each may be from float32."""

from dataclasses import dataclass

import torch

from objgan.sections import ComputeConfig


@dataclass(frozen=True)
class Tolerance:
    """Largest error of a loss, relative to the loss (or to 0.1, if that is larger), and of the gradient of a term: norm
    of the difference over norm, by network. None: equal bit for bit.
    """

    loss: float
    gradient: float


ROUNDING = Tolerance(1e-3, 1e-2)
"""Sums in another order."""
TF32 = Tolerance(1e-2, 1e-1)
"""10 bits of mantissa in products."""
BFLOAT16 = Tolerance(1e-1, 5e-1)
"""7 bits of mantissa in layers."""


@dataclass(frozen=True)
class Form:
    """Settings of the computation; `dtype`: of the autocast; `tolerance`: against float32 on the same device."""

    name: str
    compute: ComputeConfig
    dtype: torch.dtype = torch.float32
    tolerance: Tolerance | None = ROUNDING


def _compute(**settings: object) -> ComputeConfig:
    plain: dict[str, object] = {"precision": "float32", "channels_last": "off"}
    return ComputeConfig.model_validate(plain | settings)


REFERENCE = Form("float32", _compute())


def forms(device: torch.device, compiled: bool) -> list[Form]:
    """What a device can do beside `REFERENCE`; on a GPU each of what the settings `auto` turn on, then all of it."""
    again, last = Form("float32 again", _compute(), tolerance=None), Form("channels_last", _compute(channels_last="on"))
    bfloat16 = Form("bfloat16", _compute(precision="bfloat16"), torch.bfloat16, BFLOAT16)
    if device.type != "cuda":
        return [again, last, bfloat16, *([Form("compiled", _compute(compile=True))] if compiled else [])]
    auto = {"precision": "auto", "channels_last": "auto"}
    found = [
        Form("float32 again", _compute()),  # some operations have no repeatable form on a GPU
        Form("TF32", _compute(precision="auto"), tolerance=TF32),
        last,
        bfloat16,
        Form("auto", _compute(**auto), torch.bfloat16, BFLOAT16),
        Form("auto, not repeatable", _compute(**auto, deterministic=False), torch.bfloat16, BFLOAT16),
    ]
    if compiled:
        found += [
            Form("compiled", _compute(compile=True)),
            Form("auto, compiled", _compute(**auto, compile=True), torch.bfloat16, BFLOAT16),
        ]
    return found


def usual(device: torch.device) -> Form:
    """What the default settings turn on: in it, what is not about number types is checked."""
    return next((form for form in forms(device, False) if form.name == "auto"), REFERENCE)
