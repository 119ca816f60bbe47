"""Rows of a benchmark, kept as they come: a killed run goes on where it stopped.

A file of JSON lines. The first says what the rows belong to (the weights, the settings, the code of the
measures); rows of anything else are set aside, never mixed in, and taken back when they are asked for again. Each line
is on the disk before the next item begins; a last line that a kill cut off is dropped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.shard import Shard
from ttm.atomic_write import written_beside


def fingerprint(settings: dict[str, Any], paths: Iterable[Path]) -> str:
    """A short name for "these settings and the contents of these files", 16 hex digits."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in sorted(paths):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class RowFile:
    """Rows by measure and item, on the disk.

    Args:
        path: the file; its folder is made.
        belongs_to: the :func:`fingerprint` of what is measured.

    Raises:
        ValueError: another run writes to this file now.
    """

    def __init__(self, path: Path, belongs_to: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = open(path.with_suffix(".lock"), "w", encoding="utf-8")  # noqa: SIM115 - held until close
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise ValueError(
                f"Another run writes to {path}; expected one at a time (choose another output=...)."
            ) from error
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        whole = self._read(path, belongs_to)
        if whole is None:
            if path.exists():
                os.replace(path, _aside(path, _owner(_whole_lines(path))))
            kept = _aside(path, belongs_to)
            whole = self._read(kept, belongs_to) or json.dumps({"belongs_to": belongs_to}) + "\n"
        with written_beside(path) as beside:
            beside.write_text(whole, encoding="utf-8")
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - held until close

    def _read(self, path: Path, belongs_to: str) -> str | None:
        """The file's whole lines, read into ``rows``; None when it belongs to something else."""
        if not path.exists():
            return None
        lines = _whole_lines(path)
        rows = _parse(lines, belongs_to)
        if rows is None:
            return None
        self.rows = rows
        return "".join(lines)

    def add(self, measure: str, item: str, row: dict[str, Any]) -> None:
        """Keep a row; it is on the disk when this returns."""
        row = plain(row)
        self._file.write(json.dumps({"measure": measure, "item": item, "row": row}, ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows[measure, item] = row

    def close(self) -> None:
        """Let another run write."""
        self._file.close()
        self._lock.close()


def row_path(folder: Path, shard: Shard) -> Path:
    """Where a part keeps its rows."""
    return folder / ("rows.jsonl" if shard.count == 1 else f"rows-{shard.index}of{shard.count}.jsonl")


def read_rows(folder: Path, belongs_to: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of all parts, by measure and item; rows of anything else are left out."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("rows*.jsonl")):
        found.update(_parse(_whole_lines(path), belongs_to) or {})
    return found


def _whole_lines(path: Path) -> list[str]:
    """A last line that a kill cut off, or that is being written, is dropped."""
    # Not splitlines: a text in JSON may hold characters that it takes for the end of a line.
    return [line + "\n" for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def _aside(path: Path, belongs_to: str) -> Path:
    """Where rows of something else wait."""
    return path.with_name(f"{path.name}.{belongs_to}.old")


def _owner(lines: list[str]) -> str:
    """What rows belong to, by their first line."""
    try:
        return str(json.loads(lines[0])["belongs_to"])
    except (IndexError, KeyError, TypeError, json.JSONDecodeError):
        return "unknown"


def _parse(lines: list[str], belongs_to: str) -> dict[tuple[str, str], dict[str, Any]] | None:
    """Rows by measure and item; None when they belong to something else."""
    if _owner(lines) != belongs_to:
        return None
    entries = [json.loads(line) for line in lines[1:]]
    return {(entry["measure"], entry["item"]): entry["row"] for entry in entries}


def plain(value: Any) -> Any:
    """Values as JSON holds them: NumPy numbers become Python's, NaN becomes None, infinity 1e9."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item") and callable(value.item):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else math.copysign(1e9, value)
    return value
