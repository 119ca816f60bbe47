"""What a safetensors file says of itself, without reading its tensors.

The format: 8 bytes, the header's length; the header, JSON with each tensor's dtype, shape and place; the tensors.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path


def read_header(path: Path) -> dict[str, list[int]]:
    """Names and shapes of the tensors of a safetensors file that is as long as its own header says.

    Raises:
        ValueError: the file is damaged, or none.
    """
    size = path.stat().st_size
    try:
        with open(path, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > size - 8:
                raise ValueError("its header is cut off")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        shapes = {name: list(entry["shape"]) for name, entry in header.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path} is damaged ({error}); expected a whole safetensors file.") from error
    expected = 8 + length + end
    if size != expected:
        raise ValueError(f"{path} is damaged: it has {size} bytes; expected {expected} by its own header.")
    return shapes
