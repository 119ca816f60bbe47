"""Tensors in one safetensors file, or in several that each hold some rows; written and read so.

``name.safetensors`` holds whole tensors. ``name-00001-of-00008.safetensors`` and its fellows hold rows of them each:
the header's "rows" says which, {tensor: [first row, rows of the whole]}; a tensor that it does not name is whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from stages.sharding import Share, first_row, local
from stages.whole_files import sync


def write_share(folder: Path, name: str, tensors: Mapping[str, Tensor], share: Share) -> None:
    """Write this process's rows of tensors that are shared out, and, as number 0, the others whole.

    Raises:
        OSError, SafetensorError: the disk is full, the folder read-only, …
    """
    if not share.writes:
        return
    rows: dict[str, tuple[int, int]] = {}
    own: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        part = local(tensor)
        if isinstance(tensor, DTensor):
            rows[key] = (first_row(tensor), tensor.shape[0])
        elif share.index:
            continue
        own[key] = part.cpu().contiguous()
    file = f"{name}.safetensors"
    if share.count > 1:
        file = f"{name}-{share.index + 1:05d}-of-{share.count:05d}.safetensors"
    save_file(own, folder / file, {"format": "pt", "rows": json.dumps(rows)})
    sync(folder / file)


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of ``folder/name*.safetensors``, read when asked for.

    Args:
        folder: a checkpoint.
        name: "model", "ema" or "optimizer".
        advice: what to do about a broken file; ends the error's sentence.

    Raises:
        ValueError: a file is missing, truncated or no safetensors file.
    """

    def __init__(self, folder: Path, name: str, advice: str) -> None:
        self._pieces: dict[str, list[tuple[int, Any]]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        files = sorted(folder.glob(f"{name}.safetensors")) or sorted(folder.glob(f"{name}-*-of-*.safetensors"))
        expected = int(files[0].stem.rsplit("-", 1)[1]) if files and "-of-" in files[0].stem else 1
        if len(files) != expected:
            raise ValueError(f"{folder} has {len(files)} of {expected} files {name}*.safetensors; {advice}")
        for path in files:
            try:
                file = safe_open(path, "pt")
                rows = json.loads((file.metadata() or {}).get("rows", "{}"))
                for key in file.keys():  # noqa: SIM118 - no mapping
                    shape = tuple(file.get_slice(key).get_shape())
                    first, count = rows.get(key, (0, shape[0] if shape else 0))
                    self._pieces.setdefault(key, []).append((first, file))
                    self._shapes[key] = (count, *shape[1:]) if shape else ()
            except (SafetensorError, OSError, ValueError) as error:
                raise ValueError(f"{path} can't be read ({error}); {advice}") from error

    def __getitem__(self, name: str) -> Tensor:
        return self.rows(name, 0, self._shapes[name][0] if self._shapes[name] else 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor."""
        return self._shapes[name]

    def rows(self, name: str, first: int, count: int) -> Tensor:
        """Rows ``first`` to ``first + count`` of a tensor [R, ...]; a single number as it is."""
        pieces = sorted(self._pieces[name], key=lambda piece: piece[0])
        if not self._shapes[name]:
            return pieces[0][1].get_tensor(name)
        found = []
        for begin, file in pieces:
            part = file.get_slice(name)
            low, high = max(first, begin), min(first + count, begin + part.get_shape()[0])
            if low < high:
                found.append(part[low - begin : high - begin])
        if not found:
            return pieces[0][1].get_slice(name)[0:0]
        return torch.cat(found) if len(found) > 1 else found[0]

    def own(self, name: str, of: Tensor) -> Tensor:
        """The rows that this process holds of ``of``, a tensor of the same shape."""
        return self.rows(name, first_row(of), len(local(of)) if of.ndim else 0)
