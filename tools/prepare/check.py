"""``python -m tools.prepare.check OUT``: read every clip of a folder, and hold it against the manifest.

Says what is damaged or missing, one line each; the exit status is 0 if nothing is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.prepare.work import read_rejects
from ttm.data.clip_manifest import ClipFolderManifest, ClipRow
from ttm.data.prepared_clips import read_shard


def faults(folder: Path) -> Iterator[str]:
    """What is wrong with a folder, one sentence each.

    Raises:
        ValueError, FileNotFoundError: it has no readable manifest.
    """
    shards = ClipFolderManifest.load(folder).shards()
    for shard, rows in shards.items():
        try:
            found = {clip.clip_id: ClipRow.of(clip, shard) for clip in read_shard(folder / shard)}
        except (ValueError, OSError) as error:
            yield str(error)
            continue
        for row in rows:
            if found.pop(row.clip_id, None) != row:
                yield f"Clip {row.clip_id} of {shard} is missing or unlike the manifest."
        yield from (f"Clip {clip_id} of {shard} is not in the manifest." for clip_id in found)
    for path in sorted(folder.glob("shard-*.tar")):
        if path.name not in shards:
            yield f"{path.name} is not in the manifest."


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of prepared clips")
    folder = parser.parse_args(arguments).folder
    try:
        wrong = list(faults(folder))
        counts = f"{len(ClipFolderManifest.load(folder))} clips, {len(list(read_rejects(folder)))} left out"
    except (ValueError, OSError) as error:
        print(f"check: error: {error}", file=sys.stderr)
        return 2
    for sentence in wrong:
        print(sentence)
    print(f"{folder}: {counts}, {len(wrong)} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
