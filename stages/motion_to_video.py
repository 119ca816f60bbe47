"""Stage 2: from the image, the mask trajectory, the prompt and each object's own prompt to the video.

Letters: B batch, L objects, S text tokens, D text width, t h w the latent grid; p the patch of the transformer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from einops import rearrange, reduce
from numpy.typing import NDArray
from torch import Tensor

from stages.draws import chosen_variants, in_share
from stages.latent_cache import CachedClips
from stages.settings import Settings
from stages.sources import Clips
from stages.task import Batch
from stages.text_table import Texts
from ttm.objects import ObjectPrompt, PromptPlan, whole_plan
from ttm.pipelines.conditioning import Conditions, motion_to_video_condition


def under_other_names(plan: PromptPlan) -> PromptPlan:
    """Each object's own prompt says what it does under the name of the next object: "the blue cup turns", said to the
    red ball, which turns. From these a model learns to hear a local prompt where it is said, whomever it names.

    A prompt that does not hold its object's phrase stays as it is.
    """
    names = [*plan.phrases[1:], plan.phrases[0]]
    objects = (
        ObjectPrompt(item.phrase, item.local_prompt.replace(item.phrase, name, 1))
        for item, name in zip(plan.objects, names, strict=True)
    )
    return PromptPlan(plan.prompt, plan.motion_prompt, tuple(objects))


class MotionToVideo:
    """Samples of stage 2; see :class:`stages.task.Task`.

    Args:
        cache: with corrupted variants where ``stage.corrupted`` asks for them.
        texts: of the prompts and the local prompts.
        settings: of the run.
        patch_size: (t, h, w) of the transformer.
        rest: latents of a trajectory without objects, [Z, t, h, w], by their shape; needed where ``motion.left_out``
            is above 0.
    """

    def __init__(
        self,
        cache: Clips,
        texts: Texts,
        settings: Settings,
        patch_size: Sequence[int],
        rest: Mapping[tuple[int, ...], Tensor] | None = None,
    ) -> None:
        self.cache, self.texts, self.patch_size = cache, texts, tuple(patch_size)
        self.seed, self.num_scenes = settings.seed, len(cache)
        self.corrupted, self.num_variants = settings.stage.corrupted, settings.data.corrupted_variants
        self.left_out, self.rest = settings.motion.left_out, rest or {}
        self.drop_sentence, self.exchanged_names = settings.stage.drop_sentence, settings.stage.exchanged_names
        self.nothing, self.nothing_mask = texts.lookup([""])

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        scenes = self.cache.order(self.seed, indices)
        variants = chosen_variants(self.seed, indices, self.corrupted, self.num_variants)
        clips = self.cache.rows(scenes, variants)
        # E(x0) is the true image's; a corrupted trajectory spoils E(s) and the coverage together. The object's
        # weight in the loss follows the coverage that the model is given, and stays where the object was at
        # first: what it uncovers has to be painted too, or a trace of it is left there.
        unseen = in_share(self.seed, indices, "motion", self.left_out)
        motion, plans = self._without_motion(clips.motion, clips.plans, unseen)
        condition = motion_to_video_condition(self._image(clips, unseen), motion)
        unsaid = in_share(self.seed, indices, "sentence", self.drop_sentence) & ~unseen  # without motion: all it has
        text, _ = self.texts.lookup(["" if gone else plan.prompt for plan, gone in zip(plans, unsaid, strict=True)])
        exchanged = in_share(self.seed, indices, "names", self.exchanged_names)
        plans = [under_other_names(plan) if other else plan for plan, other in zip(plans, exchanged, strict=True)]
        local_text, local_mask = self._local(plans, clips.coverage.shape[1])
        t, h, w = self.patch_size
        coverage = reduce(clips.coverage, "b l (t pt) (h ph) (w pw) -> b l t h w", "mean", pt=t, ph=h, pw=w)
        coverage[torch.from_numpy(unseen)] = 0
        conditions = Conditions(condition, text, coverage, local_text, local_mask)
        covered = clips.coverage.sum(dim=1, keepdim=True).clamp(max=1)
        return Batch(clips.video, conditions, torch.maximum(covered, covered[:, :, :1]))

    def _image(self, clips: CachedClips, unseen: NDArray[np.bool_]) -> Tensor:
        """E(x0), [B, Z, 1, h, w]; or the first frame carried along the masks, [B, Z, t, h, w], at rest where
        ``unseen``."""
        first = clips.video[:, :, :1]
        if clips.carried is None:
            return first
        return torch.where(rearrange(torch.from_numpy(unseen), "b -> b 1 1 1 1"), first, clips.carried)

    def _without_motion(
        self, motion: Tensor, plans: list[PromptPlan], unseen: NDArray[np.bool_]
    ) -> tuple[Tensor, list[PromptPlan]]:
        """Where ``unseen`` [B]: a trajectory without objects, and the sentence as nobody took it apart.

        What the loss weighs stays the true objects' place, so that samples with and without motion weigh the same.
        """
        if not unseen.any():
            return motion, plans
        seen = rearrange(torch.from_numpy(~unseen), "b -> b 1 1 1 1")
        kept = [whole_plan(plan.prompt) if gone else plan for plan, gone in zip(plans, unseen, strict=True)]
        return torch.where(seen, motion, self.rest[tuple(motion.shape[1:])]), kept

    def _local(self, plans: Sequence[PromptPlan], most: int) -> tuple[Tensor, Tensor]:
        """Local prompts [B, L, S, D] and mask bool [B, L, S]; a clip with fewer objects has no key in the rest."""
        texts = [text for plan in plans for text in [*plan.local_prompts, *[""] * (most - len(plan.objects))]]
        embedded, mask = self.texts.lookup(texts)
        embedded = rearrange(embedded, "(b l) s d -> b l s d", l=most)
        mask = rearrange(mask, "(b l) s -> b l s", l=most)
        for place, plan in enumerate(plans):
            embedded[place, len(plan.objects) :] = 0
            mask[place, len(plan.objects) :] = False
        return embedded, mask
