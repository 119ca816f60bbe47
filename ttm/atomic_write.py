"""Files that are whole or absent: written beside their path, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_beside(path: str | Path) -> Iterator[Path]:
    """Hand out a path to write to; it takes the place of ``path`` when the block ends without an error.

    The path handed out lies in the same folder (so that the rename is one step of the file system) and ends
    in the same suffix (so that writers which look at the name choose the same format). If the block fails,
    what it wrote is removed and a file that was at ``path`` before stays as it was.

    Raises:
        OSError: the folder is missing or read-only, the disk is full, …; names ``path`` and what is expected.
            The subclass (``PermissionError``, …) and ``errno`` are the system's.
    """
    path = Path(path)
    # Process ids alone repeat between machines that share a disk.
    beside = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.{os.getpid()}.part{path.suffix}")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "This is a folder; expected the path of a file", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "Cannot write: its folder does not exist", str(path))
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        reason = error.strerror or str(error)
        message = f"Cannot write this file ({reason}); expected a writable folder with space left"
        raise OSError(error.errno or errno.EIO, message, str(path)) from error
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
