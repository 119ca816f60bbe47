"""Few-shot training as a task: a prompt, masks and a clean first frame; the noise of the later frames.

Letters: B batch, L objects, Z latent channels, T frames of a window, h w the latent grid, S text tokens.

Source: the few-shot paper (arXiv 2503.18386), Eq. 2: z_1 stays clean, noise and loss are on z_2..z_T.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import permutations, product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stages.draws import chosen_colours, clip_order
from stages.latent_cache import frames_to_tensor
from stages.settings import Settings
from stages.task import Batch
from stages.text_table import TextTable
from ttm.data.clip_folder import Clip
from ttm.pipelines.autoencoders import encode_video
from ttm.pipelines.conditioning import Conditions, trajectory_coverage
from ttm.pipelines.embedded import EMBEDDED


class FewShot:
    """Samples of few-shot training; see :class:`stages.task.Task`. All windows lie in memory: they are few.

    With ``data.clips.vary_colours`` each is there in several colours, and a sample takes one of them: "clip" in all six
    orders of red, green and blue; "objects" with its objects in each of these and the ground behind them in each, 36
    in all. Of a handful of clips a model learns their colours; of clips in all colours, to take them from the first
    frame; and where objects change theirs and the ground does not, to take them from the object.

    Args:
        clips: the windows.
        vae: the frozen image autoencoder, on the device to encode on.
        texts: of the prompts.
        settings: of the run.
        token_patch: of the host.
    """

    def __init__(
        self, clips: Sequence[Clip], vae: Any, texts: TextTable, settings: Settings, token_patch: Sequence[int]
    ) -> None:
        self.seed, self.num_scenes, self.texts = settings.seed, len(clips), texts
        self.prompts = [clip.prompt for clip in clips]
        orders = colour_orders(settings.data.clips.vary_colours)
        self.latents = torch.stack([torch.cat([_encode(vae, clip, *order) for order in orders]) for clip in clips])
        most = max(int(clip.ids.max()) for clip in clips)
        self.coverage = torch.cat([self._coverage(clip, most, token_patch) for clip in clips])
        self.nothing, self.nothing_mask = texts.lookup([""])

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        windows = clip_order(self.seed, indices, self.num_scenes)
        colours = chosen_colours(self.seed, indices, self.latents.shape[1])
        latents, coverage = self.latents[windows, colours], self.coverage[windows]
        text, _ = self.texts.lookup([self.prompts[window] for window in windows])
        # The visual condition is the clean first frame in the latents themselves: no channel beside them.
        conditions = Conditions(latents[:, :0], text, coverage)
        return Batch(latents, conditions, coverage.sum(dim=1, keepdim=True).clamp(max=1), clean_frames=1)

    def _coverage(self, clip: Clip, most: int, token_patch: Sequence[int]) -> Tensor:
        """[1, L, T, h, w], zeros for objects that a clip does not have."""
        count = int(clip.ids.max())
        measured = trajectory_coverage(torch.from_numpy(clip.ids[None]), count, self.latents.shape[3:], token_patch)
        return F.pad(measured, (0, 0, 0, 0, 0, 0, 0, most - count))


Order = tuple[int, ...]


def colour_orders(varied: str) -> list[tuple[Order, Order]]:
    """Orders of red, green and blue, (the objects', the ground's), that a clip is seen in by ``VARIED_COLOURS``."""
    orders = list(permutations(range(3)))
    if varied == "objects":
        return list(product(orders, orders))
    return [(order, order) for order in orders[: 1 if varied == "none" else None]]


@torch.no_grad()
def _encode(vae: Any, clip: Clip, objects: Order, ground: Order) -> Tensor:
    """[1, Z, T, h, w] of a clip with the colour channels of its objects and of its ground in these orders."""
    frames = np.where(clip.ids[..., None] > 0, clip.frames[..., list(objects)], clip.frames[..., list(ground)])
    return encode_video(vae, frames_to_tensor([frames]).to(vae.device)).cpu()


class NamedSegmenter:
    """A segmenter that is opened when a clip first needs it.

    Args:
        name: "ttm-tiny", "public" (SAM 2 and CLIP from the Hub) or a folder that ``ttm.Segmenter`` saved.
        device: where it works.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.device = name, device

    @cached_property
    def _opened(self) -> Any:
        from ttm.segmentation import Segmenter  # sam2 takes hydra's global state; the settings are read by now

        if self.name == "public":
            return Segmenter.from_public().eval().to(self.device)
        folder = EMBEDDED / "ttm-tiny" / "segmenter" if self.name == "ttm-tiny" else self.name
        return Segmenter.from_pretrained(folder, torch_dtype=torch.float32).eval().to(self.device)

    def segment(self, image: Any, phrases: Sequence[str]) -> NDArray[np.uint8]:
        """As ``ttm.Segmenter``."""
        found: NDArray[np.uint8] = self._opened.segment(image, phrases)
        return found

    def track(self, frames: NDArray[np.uint8], first_ids: NDArray[Any]) -> NDArray[np.uint8]:
        """As ``ttm.Segmenter``."""
        tracked: NDArray[np.uint8] = self._opened.track(frames, first_ids)
        return tracked
