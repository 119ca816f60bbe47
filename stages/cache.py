"""Fill the latent cache of a run.

    python -m stages.cache data.encode_scenes=8192                  # both stages share what this writes
    python -m stages.cache data.encode_scenes=8192 --worker 0/2     # in two terminals: 0/2 and 1/2
    python -m stages.cache data.encode_scenes=8192 data.corrupted_variants=1
    python -m stages.cache data.encode_scenes=8192 motion=optical_flow
    python -m stages.cache data.encode_scenes=8192 host.carried_first_frame=true

Takes the settings of ``stages.train``. Stopped and started again it goes on with the first shard that is missing; a
training run may read the shards that are there meanwhile. The folder's name holds a hash of the encoder's
weights and the world's settings, so that latents of another autoencoder are never mixed in.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.corruption import corrupt_ids
from stages.draws import sample_rng
from stages.host import encoder_digest, load_vae
from stages.latent_cache import (
    carried_path,
    frames_to_tensor,
    pack_ids,
    pictures_path,
    read_shard,
    shard_path,
    variant_path,
)
from stages.settings import DataSettings, Settings
from stages.settings_check import refuse_few_shot
from stages.settings_loading import load_settings
from stages.whole_files import read_tensors, remove_leftovers, write_json, write_tensors
from ttm.data.synthetic import SyntheticScene, SyntheticWorld
from ttm.motion.carried_frame import carry_first_frame
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.motion.optical_flow import FlowTrajectory
from ttm.motion.representation import motion_representation
from ttm.motion.token_grid import object_coverage
from ttm.pipelines.autoencoders import encode_video


def build_world(data: DataSettings, split: str = "train") -> SyntheticWorld:
    """The world that the settings describe."""
    fewest, most = data.num_objects
    return SyntheticWorld(
        split=split,  # type: ignore[arg-type]
        size=data.size,
        num_frames=data.num_frames,
        num_objects=(fewest, most),
        appearance=data.appearance,
        pieces=data.pieces,
        seed=data.seed,
    )


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def variant_key(data: DataSettings) -> str:
    """Names the corrupted variants of one kind of corruption."""
    return _digest([asdict(data.corruption), data.seed])[:8]


def cache_folder(data: DataSettings, vae: torch.nn.Module) -> Path:
    """Where the latents of this world and this autoencoder lie.

    The key holds the world's settings, its first scene (so that a changed world is another world), the size of a
    shard and the encoder's weights. It does not hold the number of scenes: a cache grows.
    """
    scene = build_world(data)[0]
    content = hashlib.sha256(scene.frames.tobytes() + scene.ids.tobytes() + scene.plan.prompt.encode()).hexdigest()
    world = {
        name: getattr(data, name)
        for name in ("size", "num_frames", "num_objects", "seed", "appearance", "pieces", "shard_size")
    }
    described = {"world": world, "first_scene": content[:12], "vae": encoder_digest(vae)}
    folder = Path(data.cache_dir) / f"{data.name}-{_digest(described)}"
    if not (folder / "cache.json").exists():
        write_json(folder / "cache.json", described)
    return folder


class ShardWriter:
    """Encodes scenes of a world, shard by shard.

    Args:
        folder: from :func:`cache_folder`.
        data: settings of the world and the shards.
        vae: the frozen autoencoder, on the device to encode on.
        precision: "bf16" turns the encoder itself to bfloat16: its latents differ by about 1% of their spread.
        motion: a representation; where its pictures are not those of the masks they are encoded beside these.
        carried: encode the first frame carried along the masks, too.
    """

    def __init__(
        self,
        folder: Path,
        data: DataSettings,
        vae: Any,
        precision: str,
        motion: str = "masks",
        carried: bool = False,
    ) -> None:
        self.folder, self.data, self.motion = folder, data, motion_representation(motion)
        self.carried = carried
        self.vae = fast_encoder(vae) if precision == "bf16" else vae
        self.world = build_world(data)
        self.key = variant_key(data)

    def missing(self, number: int) -> set[Path]:
        """The files of a shard, itself and what lies beside it, that are absent or damaged (which is reported)."""
        itself = shard_path(self.folder, number)
        variants = range(self.data.corrupted_variants)
        paths = [itself, *(variant_path(self.folder, number, variant, self.key) for variant in variants)]
        if self.carried:
            paths += [carried_path(path) for path in paths]
        if not self.motion.shows_masks:
            paths.append(pictures_path(self.folder, number, self.motion.name))
        found = set()
        for path in paths:
            try:
                if path == itself:
                    read_shard(self.folder, number)
                else:
                    read_tensors(path, "")
            except FileNotFoundError:
                found.add(path)
            except ValueError as error:
                print(f"stages.cache: encoding {path.name} again: {error}", file=sys.stderr)
                found.add(path)
        return found

    def write(self, number: int, missing: Set[Path]) -> None:
        """Encode one shard: those of its files that are ``missing``."""
        first = number * self.data.shard_size
        scenes = [self.world[index] for index in range(first, first + self.data.shard_size)]
        ids = [scene.ids for scene in scenes]
        path = shard_path(self.folder, number)
        if path in missing:
            tensors = self._trajectories(ids) | pack_ids(ids)
            tensors["video"] = self._encode([scene.frames for scene in scenes])
            write_json(path.with_suffix(".json"), [scene.plan.to_dict() for scene in scenes])
            write_tensors(path, tensors)
        self._write_carried(path, missing, scenes, ids)
        for variant in range(self.data.corrupted_variants):
            path = variant_path(self.folder, number, variant, self.key)
            if missing & {path, carried_path(path)}:
                spoiled = [
                    corrupt_ids(each, self.data.corruption, sample_rng(self.data.seed + variant, scene, "corruption"))
                    for scene, each in enumerate(ids, start=first)
                ]
                if path in missing:
                    write_tensors(path, self._trajectories(spoiled))
                self._write_carried(path, missing, scenes, spoiled)
        path = pictures_path(self.folder, number, self.motion.name)
        if path in missing:
            moves = [FlowTrajectory(scene.ids, scene.flow()) for scene in scenes]
            write_tensors(path, {"motion": self._encode([self.motion.to_video(item) for item in moves])})

    def _write_carried(
        self, path: Path, missing: Set[Path], scenes: Sequence[SyntheticScene], ids: Sequence[NDArray[np.uint8]]
    ) -> None:
        """Beside the trajectories of ``path``, which are ``ids``."""
        path = carried_path(path)
        if path in missing:
            clips = [carry_first_frame(scene.frames[0], each) for scene, each in zip(scenes, ids, strict=True)]
            write_tensors(path, {"carried": self._encode(clips)})

    def _trajectories(self, ids: Sequence[NDArray[np.uint8]]) -> dict[str, Tensor]:
        motion = self._encode([MaskTrajectory(item).to_video() for item in ids])
        grid = (motion.shape[2], motion.shape[3], motion.shape[4])
        most = self.data.num_objects[1]
        coverage = torch.cat([object_coverage(torch.from_numpy(item[None]), most, grid) for item in ids])
        return {"motion": motion, "coverage": coverage.half()}

    @torch.no_grad()
    def _encode(self, clips: Sequence[NDArray[np.uint8]]) -> Tensor:
        latents = []
        for first in range(0, len(clips), self.data.encode_batch):
            batch = frames_to_tensor(clips[first : first + self.data.encode_batch]).to(self.vae.device)
            batch = batch.contiguous(memory_format=torch.channels_last_3d)
            latents.append(encode_video(self.vae, batch).half().cpu())
        return torch.cat(latents)


@torch.no_grad()
def latents_at_rest(vae: Any, motion: str, num_frames: int, height: int, width: int) -> Tensor:
    """Latents of a motion without objects, float32 [Z, t, h, w]."""
    kind = motion_representation(motion)
    pictures = kind.to_video(kind.at_rest(num_frames, height, width))
    return encode_video(vae, frames_to_tensor([pictures]).to(vae.device))[0].cpu()


def fast_encoder(vae: Any) -> Any:
    """The autoencoder's weights in bfloat16, with channels last: 0.11 s of one core a 17 x 128 x 128 clip against
    0.18 by autocast, for a Wan encoder of 1M parameters. The latents' statistics, where they are buffers, stay exact.
    The module is changed in place."""
    for parameter in vae.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
    return vae


def fill_cache(
    settings: Settings,
    folder: Path,
    vae: Any,
    num_scenes: int,
    worker: tuple[int, int] = (0, 1),
    say: Callable[[str], None] = print,
    carried: bool = False,
) -> None:
    """Write the shards that ``num_scenes`` need and that are missing.

    Args:
        worker: (rank, count): this process writes every ``count``-th shard, from ``rank`` on.
        carried: the first frames carried along the masks, too.

    Raises:
        OSError: the folder can't be written.
    """
    writer = ShardWriter(folder, settings.data, vae, settings.precision, settings.motion.name, carried)
    remove_leftovers(folder)
    shards = range(worker[0], -(-num_scenes // settings.data.shard_size), worker[1])
    todo = {number: missing for number in shards if (missing := writer.missing(number))}
    begin = time.monotonic()
    for done, (number, missing) in enumerate(todo.items(), start=1):
        writer.write(number, missing)
        pace = (time.monotonic() - begin) / done
        clips = settings.data.shard_size / pace
        left = pace * (len(todo) - done) / 60
        say(f"cache: shard {number} ({done} of {len(todo)}), {clips:.1f} scenes/s, {left:.1f} min left")


def parse_worker(text: str) -> tuple[int, int]:
    """The (rank, count) of "RANK/COUNT".

    Raises:
        SystemExit: it is something else.
    """
    rank, _, count = text.partition("/")
    if not (rank.isdigit() and count.isdigit() and int(rank) < int(count)):
        raise SystemExit(f"--worker {text!r} can't be read; expected RANK/COUNT, such as 0/2.")
    return int(rank), int(count)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the head of this file."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    worker = (0, 1)
    if "--worker" in arguments:
        place = arguments.index("--worker")
        worker = parse_worker(arguments[place + 1] if place + 1 < len(arguments) else "")
        del arguments[place : place + 2]
    try:
        settings = load_settings(arguments)
        refuse_few_shot(settings)
        if settings.data.encode_scenes < 1:
            raise ValueError("data.encode_scenes is 0; expected how many scenes the cache should hold.")
        if settings.num_threads:
            torch.set_num_threads(settings.num_threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        vae = load_vae(settings.host.pipeline, device)
        folder = cache_folder(settings.data, vae)
        print(f"cache: {folder}", flush=True)
        carried, count = bool(settings.host.carried_first_frame), settings.data.encode_scenes
        fill_cache(settings, folder, vae, count, worker, lambda line: print(line, flush=True), carried)
    except (ValueError, OSError) as error:
        raise SystemExit(f"stages.cache: {error}") from error


if __name__ == "__main__":
    main()
