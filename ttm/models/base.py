"""Which public weights a model extends, so that what was trained on some is not put on others of the same size.

A base is a plain dictionary, kept in the model's configuration and in every adapter:
    source       Hub id, or the name of the folder that the weights came from
    revision     commit of the Hub, or None
    fingerprint  of the weights themselves: equal for the same files, wherever they came from
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_SAMPLE = 1 << 16


def fingerprint(files: Iterable[Path]) -> str:
    """A hash of weight files in their order, 16 hexadecimal digits, within milliseconds whatever their size.

    It reads the beginning of each file (where the names, dtypes and shapes of the tensors stand) and 64 places of 1
    KB, spread over the rest: other weights of the same shapes differ at all of them.
    """
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(str(size).encode())
        with open(path, "rb") as stream:
            digest.update(stream.read(_SAMPLE))
            for place in range(64):
                stream.seek(size * place // 64)
                digest.update(stream.read(1024))
    return digest.hexdigest()[:16]


def same_base(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two bases have the same weights, as far as both are known."""
    if not one or not other:
        return True
    return one.get("fingerprint") == other.get("fingerprint")


def name_of(base: Mapping[str, Any] | None) -> str:
    """A base in an error: its source, its revision and its fingerprint."""
    if not base:
        return "an unknown base"
    revision = f" at {base['revision']}" if base.get("revision") else ""
    return f"{base.get('source')}{revision} ({base.get('fingerprint')})"
