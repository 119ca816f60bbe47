"""The stage of the models: caption, plan, ground, track, encode. One object a worker, on its GPU where it has one.

Letters: T frames, H W pixels, Z latent channels, t h w latent frames, rows, columns.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tools.prepare.draft import Draft
from tools.prepare.settings import ClipSettings, ModelSettings
from tools.prepare.sources import Source
from tools.prepare.words import Captioner, ImageCaptioner, caption_of_name, name_masks, plan_of_trajectory
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan
from ttm.prompt_planner import LanguageModelPlanner, PromptPlanner, RulePlanner

EMBEDDED = Path(__file__).parents[2] / "ttm/pretrained/ttm-tiny"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
Result = TypeVar("Result")


class StageError(Exception):
    """A clip can't be prepared.

    Attributes:
        stage: where it failed.
        unexpected: it was no complaint about the clip.
    """

    def __init__(self, stage: str, reason: str, unexpected: bool = False) -> None:
        super().__init__(reason)
        self.stage, self.unexpected = stage, unexpected


def in_stage(stage: str, step: Callable[..., Result], *arguments: Any) -> Result:
    """Do one step of a clip.

    Raises:
        StageError: it failed; complaints about the clip (ValueError, FileNotFoundError) are told from other errors.
        OSError: the disk is full, which every other clip would meet too.
    """
    try:
        return step(*arguments)
    except StageError:
        raise
    except (ValueError, FileNotFoundError) as error:
        raise StageError(stage, _sentence(error)) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        raise StageError(stage, f"{type(error).__name__}: {_sentence(error)}", unexpected=True) from error


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


class Models:
    """Whichever models are asked for, loaded once.

    Args:
        clips: what is prepared.
        models: by which models.

    Raises:
        ValueError, OSError: a model that is not there or can't be read.
    """

    def __init__(self, clips: ClipSettings, models: ModelSettings) -> None:
        self.clips, self.models = clips, models
        self.device = _device(models.device) if models.heavy else "cpu"
        self.planner: PromptPlanner = RulePlanner()
        if models.planner != "rules":
            self.planner = LanguageModelPlanner(models.planner, server=models.server)
        self.captioner: Captioner | None = None
        if models.captioner:
            self.captioner = ImageCaptioner(models.captioner, self.device)
        self.segmenter = load_segmenter(models.segmenter, self.device) if models.segmenter else None
        self.vae: Any = None
        self.encoder: str | None = None
        if models.vae:
            self.vae, self.encoder = load_encoder(models.vae, self.device)

    def __call__(self, draft: Draft) -> Draft:
        """A clip with everything that was asked for.

        Raises:
            StageError: the clip is to be left out.
        """
        caption = in_stage("caption", self._caption, draft)
        plan = in_stage("plan", self._plan, draft, caption)
        if draft.ids is None:
            first = in_stage("ground", self._ground, draft, plan)
            draft = replace(draft, ids=in_stage("track", self._track, draft.frames, first), plan=plan)
        else:
            draft = self._with_given_masks(draft, plan)
        assert draft.plan is not None and draft.ids is not None
        in_stage("masks", _check_visible, draft.ids)
        draft = replace(draft, caption=caption or draft.plan.prompt)
        return draft if self.vae is None else in_stage("encode", self._encoded, draft)

    def _caption(self, draft: Draft) -> str | None:
        caption = draft.caption or (draft.plan.prompt if draft.plan else None)
        if caption is None and self.captioner is not None:
            caption = self.captioner.caption(draft.frames) or None
        if caption is None and self.clips.caption is not None:
            caption = caption_of_name(self.clips.caption, draft.source)
        if caption is None and draft.ids is None:
            raise ValueError("it has no caption; expected one beside it, a captioner, or a template")
        return caption

    def _plan(self, draft: Draft, caption: str | None) -> PromptPlan | None:
        """None: the masks have to tell."""
        if draft.plan is not None or caption is None:
            return draft.plan
        plan = self.planner.plan(caption)
        if not draft.phrases:
            return plan
        if len(draft.phrases) != len(plan.objects):
            raise ValueError(f"its caption moves {plan.phrases}; expected as many as the phrases {draft.phrases}")
        pairs = zip(plan.objects, draft.phrases, strict=True)
        return replace(plan, objects=tuple(replace(item, phrase=phrase) for item, phrase in pairs))

    def _ground(self, draft: Draft, plan: PromptPlan) -> NDArray[np.uint8]:
        if self.segmenter is None:
            lacks = "no masks; expected some beside it" if draft.ids is None else "masks without names; expected a plan"
            raise ValueError(f"it has {lacks}, or a segmenter")
        ids: NDArray[np.uint8] = self.segmenter.segment(draft.frames[0], plan.phrases)
        return ids

    def _track(self, frames: NDArray[np.uint8], first: NDArray[np.uint8]) -> NDArray[np.uint8]:
        assert self.segmenter is not None
        ids: NDArray[np.uint8] = self.segmenter.track(frames, first)
        return ids

    def _with_given_masks(self, draft: Draft, plan: PromptPlan | None) -> Draft:
        ids = draft.ids
        assert ids is not None and draft.known is not None
        if self.clips.between == "track" and not draft.known.all():
            ids = in_stage("track", self._filled, draft.frames, ids, draft.known)
        if plan is None:
            return replace(draft, ids=ids, plan=in_stage("masks", plan_of_trajectory, ids))
        if draft.in_order or draft.plan is not None:
            in_stage("masks", _check_count, plan, ids)
            return replace(draft, ids=ids, plan=plan)
        grounded = in_stage("ground", self._ground, draft, plan)
        plan, ids = in_stage("masks", name_masks, plan, grounded, ids)
        return replace(draft, ids=ids, plan=plan)

    def _filled(self, frames: NDArray[np.uint8], ids: NDArray[np.uint8], known: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Frames without masks of their own, tracked from the one before that has; known ones stay as they are."""
        ids = ids.copy()
        starts = [*np.flatnonzero(known).tolist(), len(ids)]
        for first, end in zip(starts, starts[1:], strict=False):
            if end > first + 1 and ids[first].any():
                ids[first:end] = self._track(frames[first:end], ids[first])
        return ids

    def _encoded(self, draft: Draft) -> Draft:
        assert draft.ids is not None
        palette = MaskTrajectory(draft.ids).to_video()
        latents = {"video": self._latents(draft.frames), "motion": self._latents(palette)}
        return replace(draft, latents=latents, encoder=self.encoder)

    def _latents(self, frames: NDArray[np.uint8]) -> NDArray[np.float16]:
        """float16 [Z, t, h, w], as the stages' own cache has them."""
        import torch

        from stages.latent_cache import frames_to_tensor
        from ttm.pipelines.autoencoders import encode_video

        with torch.no_grad():
            batch = frames_to_tensor([frames]).to(self.device).contiguous(memory_format=torch.channels_last_3d)
            return encode_video(self.vae, batch)[0].half().cpu().numpy()


def load_segmenter(name: str, device: str) -> Any:
    """A saved segmenter, "ttm-tiny" for the embedded one."""
    from ttm.segmentation import Segmenter

    folder = EMBEDDED / "segmenter" if name == "ttm-tiny" else name
    return Segmenter.from_pretrained(folder).to(device).eval()


def load_encoder(name: str, device: str = "cpu") -> tuple[Any, str]:
    """An autoencoder and the digest of its encoder.

    Raises:
        ValueError: the folder has none, or an unknown one.
    """
    from stages.host import encoder_digest, load_vae

    vae = load_vae(str(EMBEDDED) if name == "ttm-tiny" else name, device)
    return vae, encoder_digest(vae)


def check_shapes(vae: Any, clips: ClipSettings) -> None:
    """Say before any clip is read that its latents could not be made.

    Raises:
        ValueError: a length or size that the autoencoder can't pack.
    """
    from ttm.pipelines.autoencoders import LatentFormat

    form = LatentFormat.of(vae)
    if wrong := [length for length in clips.num_frames if (length - 1) % form.group]:
        raise ValueError(f"num_frames is {wrong[0]}; this autoencoder packs 1 + {form.group} k frames.")
    if wrong_size := [size for size in clips.sizes if size[0] % form.space or size[1] % form.space]:
        raise ValueError(f"A size is {list(wrong_size[0])}; this autoencoder packs multiples of {form.space} pixels.")


def check_names(sources: Iterable[Source], clips: ClipSettings, models: ModelSettings) -> None:
    """Say before any clip is read that nothing would find what captions name on SA-V's masklets, which have no names.

    Raises:
        ValueError: a source has masklets and a caption, but no plan, and there is no segmenter.
    """
    if clips.masks != "given" or models.segmenter:
        return
    for source in sources:
        captioned = source.caption or models.captioner or clips.caption
        if source.masks_kind == "sa_v" and captioned and source.plan is None and not source.wrong:
            raise ValueError(
                f"{source.name} has masklets and a caption, and nothing to find on them what it names; expected"
                " --segmenter, or no caption (then the masks are the plan)."
            )


def _device(name: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _check_visible(ids: NDArray[np.uint8]) -> None:
    if not ids[0].any():
        raise ValueError("no object is visible in its first frame; expected at least one, since motion begins there")


def _check_count(plan: PromptPlan, ids: NDArray[np.uint8]) -> None:
    if ids.max() > len(plan.objects):
        raise ValueError(f"its masks have ids up to {ids.max()}; expected at most {len(plan.objects)}, as its plan")
