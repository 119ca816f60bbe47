"""``python -m tools.prepare.sheet OUT``: what a folder of prepared clips holds, as a picture.

    python -m tools.prepare.sheet prepared -o sheet.png              # 8 clips, evenly spread over the manifest
    python -m tools.prepare.sheet prepared -o sheet.png --clips 20
    python -m tools.prepare.sheet prepared -o dog.png --clip dog-1a2b3c4d5e-000000   # one clip in full

Each clip is a row: its frames with the masks over them. With latents and the autoencoder that made them (``--vae``),
a second row shows what the latents decode to.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttm.atomic_write import written_beside
from ttm.data.clip_manifest import ClipFolderManifest, ClipRow
from ttm.data.prepared_clips import PreparedClip, read_shard
from ttm.visualization import contact_sheet, labelled_rows


def read_chosen(folder: Path, rows: Sequence[ClipRow]) -> list[PreparedClip]:
    """The clips of these rows, in their order; no shard is read twice."""
    wanted: dict[str, set[str]] = {}
    for row in rows:
        wanted.setdefault(row.shard, set()).add(row.clip_id)
    found = {
        clip.clip_id: clip
        for shard, ids in wanted.items()
        for clip in read_shard(folder / shard)
        if clip.clip_id in ids
    }
    return [found[row.clip_id] for row in rows]


def clip_sheet(clips: Sequence[PreparedClip], columns: int = 5, vae: Any = None) -> NDArray[np.uint8]:
    """A row (or two, with ``vae``) a clip, uint8 [H', W', 3].

    Raises:
        ValueError: no clip, or one that has neither video nor latents to decode.
    """
    rows: dict[str, NDArray[np.uint8]] = {}
    for clip in clips:
        moves = clip.trajectory
        shown = np.unique(np.linspace(0, moves.num_frames - 1, min(columns, moves.num_frames)).round()).astype(int)
        frames = clip.frames() if clip.video else moves.to_video()
        rows[_label(clip)] = moves.overlay(frames, alpha=0.45)[shown]
        if vae is not None and clip.latents is not None:
            rows[f"{clip.clip_id[:24]}\ndecoded"] = _decoded(vae, clip.latents["video"])[shown]
    return labelled_rows(rows, f"{len(clips)} prepared clips")


def _label(clip: PreparedClip) -> str:
    words, lines = clip.caption.split(), [""]
    for word in words:
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if len(lines[-1]) + len(word) < 26 else [*lines, word]
    place = f"{Path(clip.source).name[:24]} {clip.start_seconds:.1f} s"
    return "\n".join([clip.clip_id[:24], place, *lines[:4]])


def _decoded(vae: Any, latents: NDArray[np.float16]) -> NDArray[np.uint8]:
    import torch
    from einops import rearrange

    from ttm.pipelines.autoencoders import decode_latents

    with torch.no_grad():
        video = decode_latents(vae, torch.from_numpy(latents)[None].float())[0]
    return rearrange((video * 127.5 + 127.5).round().byte(), "c t h w -> t h w c").numpy()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of prepared clips")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the picture, .png or .jpg")
    parser.add_argument("--clips", type=int, default=8, help="how many (8)")
    parser.add_argument("--clip", metavar="ID", help="one clip in full")
    parser.add_argument("--columns", type=int, default=5, help="frames of each (5)")
    parser.add_argument("--vae", metavar="ID", help="also what the latents decode to, by this autoencoder")
    chosen = parser.parse_args(arguments)
    try:
        print(_draw(chosen))
    except (ValueError, OSError) as error:
        print(f"sheet: error: {error}", file=sys.stderr)
        return 2
    return 0


def _draw(chosen: argparse.Namespace) -> Path:
    rows = ClipFolderManifest.load(chosen.folder).rows
    output: Path = chosen.output
    output.parent.mkdir(parents=True, exist_ok=True)
    if chosen.clip:
        mine = [row for row in rows if row.clip_id == chosen.clip]
        if not mine:
            raise ValueError(f"There is no clip {chosen.clip!r}; expected one such as {rows[0].clip_id}.")
        (clip,) = read_chosen(chosen.folder, mine)
        contact_sheet(output, clip.frames(), clip.trajectory, clip.plan, chosen.columns)
        return output
    places = np.unique(np.linspace(0, len(rows) - 1, min(max(chosen.clips, 1), len(rows))).round()).astype(int)
    vae = None
    if chosen.vae:
        from tools.prepare.models import load_encoder

        vae, digest = load_encoder(chosen.vae)
        if {digest} != ClipFolderManifest(rows).encoders:
            raise ValueError(f"{chosen.vae} has the digest {digest}; expected the one that made the latents.")
    sheet = clip_sheet(read_chosen(chosen.folder, [rows[place] for place in places]), chosen.columns, vae)
    with written_beside(output) as beside:
        Image.fromarray(sheet).save(beside)
    return output


if __name__ == "__main__":
    sys.exit(main())
