"""Named tensors in a safetensors file: written and summed up in one pass, compared before they are used."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from objgan.errors import InputError, shown

_MOST_HEADER = 16 << 20
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file, on the disk when this returns; the SHA-256 of its bytes.

    safetensors' own writer would need the file read again for the sum, or whole in memory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The widest types first, as safetensors does it: every tensor is aligned to its own width.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    digest = hashlib.sha256()
    with path.open("wb") as file:
        header = _header(tensors, order)
        for part in (len(header).to_bytes(8, "little"), header):
            digest.update(part)
            file.write(part)
        for name in order:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            data = flat.view(torch.uint8).numpy().data
            digest.update(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU.

    Raises:
        InputError: missing, cut short, or no safetensors file.
    """
    _check_header(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the tensors in {path} ({error}): take another checkpoint") from None


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a file, without reading the tensors.

    Raises:
        InputError: missing, cut short, or no safetensors file.
    """
    _check_header(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the tensors in {path} ({error}): take another checkpoint") from None


def _check_header(path: Path) -> None:
    """Refuse a header of a size that no file of ours has: safetensors takes up to 100 MB of it."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise InputError(f"cannot read the tensors in {path} ({error.strerror}): take another checkpoint") from None
    if length > _MOST_HEADER:
        raise InputError(f"cannot read the tensors in {path} (a header of {length} bytes): take another checkpoint")


def misfit(there: Mapping[str, tuple[int, ...]], wanted: Mapping[str, Tensor]) -> str | None:
    """How the tensors of a file differ from those that are wanted, the first of it in a few words; None: they fit."""
    for name, tensor in wanted.items():
        if name not in there:
            return f"{name} is missing"
        if there[name] != tuple(tensor.shape):
            return f"size mismatch for {name}: {list(there[name])} in the file, {list(tensor.shape)} by the settings"
    more = next((name for name in there if name not in wanted), None)
    return None if more is None else f"{shown(more)} has no place"


def _header(tensors: Mapping[str, Tensor], order: list[str]) -> bytes:
    entries, at = {}, 0
    for name in order:
        tensor = tensors[name]
        end = at + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)
