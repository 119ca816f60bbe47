"""An output folder that is written whole or not at all.

Everything is written into a hidden folder beside and moved in place at the end, by renames. What an earlier
run left stays untouched until then, and stays for good if anything fails.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ttm.cli.errors import CommandError

ROOM = 16 * 2**20
"""Bytes that must be free on the disk before a run begins; a run of ttm-tiny writes well under a megabyte."""


def check_output(folder: Path, names: Iterable[str], overwrite: bool, option: str = "-o") -> None:
    """Find out before the slow work whether ``folder`` can be written.

    Args:
        folder: where the outputs will go; it and its parents need not exist.
        names: the files that will be written.
        overwrite: whether such files may be replaced.
        option: of the command line that chose the folder.

    Raises:
        CommandError: an output is there already or is a folder, the path is no folder or read-only, or the disk is
            full.
    """
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder} is a file; expected a folder, or a path where none is yet.")
    names = sorted(names)
    refuse_overwriting(folder, names, overwrite, option)
    if folders := [name for name in names if (folder / name).is_dir()]:
        raise CommandError(f"{folder / folders[0]} is a folder; expected a file to replace. Give another {option}.")
    ground = _existing(folder)
    if not ground.is_dir():
        raise CommandError(f"{ground} is a file; {folder} can't be made inside it.")
    try:
        with tempfile.TemporaryDirectory(prefix=".ttm-", dir=ground) as probe:
            (Path(probe) / "probe").write_bytes(b"\0" * 4096)
    except OSError as error:
        raise CommandError(f"{ground} can't be written ({error.strerror}); give another {option}.") from error
    free = shutil.disk_usage(ground).free
    if free < ROOM:
        expected = f"expected {ROOM / 2**20:.0f} MB or more"
        raise CommandError(f"The disk of {ground} is full: {free / 2**20:.1f} MB free; {expected}.")


def refuse_overwriting(folder: Path, names: Iterable[str], overwrite: bool, option: str = "-o") -> None:
    """The part of :func:`check_output` that is looked at again before writing: another run may have been quicker.

    Raises:
        CommandError: an output is there already.
    """
    there = [] if overwrite else sorted(name for name in names if (folder / name).exists())
    if there:
        raise CommandError(f"{folder} holds {', '.join(there)} already; give another {option}, or --overwrite.")


@contextmanager
def written_whole(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Hand out a folder to fill; its files move to ``folder`` when the block ends without an error.

    A new ``folder`` appears by one rename. Into one that exists each file moves by a rename of its own, so
    that no half-written file ever stands in the place of a whole one. On an error nothing stays behind.

    Args:
        folder: where the files go.
        overwrite: whether they may replace files that are there by then.

    Raises:
        CommandError: a file is there already, the disk is full, or the folder can't be written.
    """
    parent = folder if folder.is_dir() else folder.parent
    made = [path for path in (parent, *parent.parents) if not path.exists()]
    filling: Path | None = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        filling = Path(tempfile.mkdtemp(prefix=".ttm-", dir=parent))
        yield filling
        refuse_overwriting(folder, (path.name for path in filling.iterdir()), overwrite)
        _move(filling, folder)
    except OSError as error:
        _discard(filling, made)
        if error.errno == errno.ENOSPC:
            raise CommandError(f"The disk of {parent} is full; nothing was written.") from error
        raise CommandError(f"{folder} can't be written ({error.strerror or error}); nothing was written.") from error
    except BaseException:
        _discard(filling, made)
        raise


def _move(filling: Path, folder: Path) -> None:
    if not folder.exists():
        filling.chmod(0o777 & ~_umask())  # mkdtemp made it private
        os.replace(filling, folder)
        return
    for path in sorted(filling.iterdir()):
        os.replace(path, folder / path.name)
    filling.rmdir()


def _discard(filling: Path | None, made: list[Path]) -> None:
    if filling is not None:
        shutil.rmtree(filling, ignore_errors=True)
    for path in made:  # innermost first; only the folders that this run made, and only if they are empty
        try:
            path.rmdir()
        except OSError:
            return


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
