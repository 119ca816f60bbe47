"""What both stages are conditioned on, as functions of tensors that know no pipeline.

The pipelines, the training objectives and the benchmarks all call these, so that a model meets at inference
exactly what it met in training.

Letters: B batch, P guidance passes, T frames, H W pixels, t h w latent frames, rows and columns, t' h' w'
the token grid, Z latent channels, C condition channels, L objects, S text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor
from transformers import CLIPTextModel

from ttm.motion.token_grid import object_coverage


def input_device(model: Any, otherwise: torch.device) -> torch.device:
    """Where a model takes its inputs: on its own device.

    Sequential offload leaves a model on "meta" and has each part on the device while that works; then ``otherwise``.
    """
    device: torch.device = model.device
    return otherwise if device.type == "meta" else device


def encode_text(
    tokenizer: Any, text_encoder: Any, texts: Sequence[str], max_length: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Embed texts as the host's own makers do.

    Wan (``UMT5EncoderModel``): beyond a text's own tokens the embedding is zero. Stable Diffusion
    (``CLIPTextModel``): the padding is encoded with the text, unmasked, and its embeddings are kept; the model was
    trained to attend to them. Its order is causal, so a text's own tokens don't depend on the padding.

    Args:
        tokenizer: a transformers tokenizer with a padding token.
        text_encoder: of one of these two classes.
        texts: B texts; a longer one than ``max_length`` tokens is cut off.
        max_length: S.
        device: what the tokens are given on; None: the encoder's.

    Returns:
        embeddings [B, S, D] in the encoder's dtype, and mask bool [B, S], true at a text's own tokens, beginning and
        end included.

    Raises:
        ValueError: S is more than the text encoder has places.
    """
    check_text_length(text_encoder, max_length)
    tokens = tokenizer(
        list(texts),
        padding="max_length",
        max_length=max_length,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    device = text_encoder.device if device is None else device
    if isinstance(text_encoder, CLIPTextModel):
        hidden = text_encoder(tokens.input_ids.to(device)).last_hidden_state
        return hidden, tokens.attention_mask.to(hidden.device).bool()
    hidden = text_encoder(tokens.input_ids.to(device), tokens.attention_mask.to(device)).last_hidden_state
    mask = tokens.attention_mask.to(hidden.device).bool()
    # where, not a product: a padded row may hold anything, and 0 * inf is NaN.
    return torch.where(rearrange(mask, "b s -> b s 1"), hidden, torch.zeros_like(hidden)), mask


def check_text_length(text_encoder: Any, max_length: int) -> None:
    """Raise ValueError unless the text encoder has a place for each of ``max_length`` tokens."""
    places = getattr(text_encoder.config, "max_position_embeddings", None)
    if places is not None and max_length > places:
        raise ValueError(
            f"max_sequence_length is {max_length}; expected at most {places}, the places of the text encoder."
        )


def image_to_motion_condition(x0_latents: Tensor, s0_latents: Tensor, num_latent_frames: int) -> Tensor:
    """Stage 1's visual condition: E(x0) and E(s0) side by side on the channels, repeated over time.

    Through-The-Mask concatenates both to the noisy s_t; how a single frame is spread over time it does not
    state. Repeating it gives every place of every frame the same two pictures to look at.

    Args:
        x0_latents: the image, [B, Z, 1, h, w].
        s0_latents: the palette picture of the first-frame masks, [B, Z, 1, h, w].
        num_latent_frames: t.

    Returns:
        [B, 2 Z, t, h, w].
    """
    both = torch.cat([_single(x0_latents, "x0_latents"), _single(s0_latents, "s0_latents")], dim=1)
    return repeat(both, "b c 1 h w -> b c t h w", t=num_latent_frames)


def motion_to_video_condition(x0_latents: Tensor, trajectory_latents: Tensor) -> Tensor:
    """Stage 2's visual condition: E(x0), repeated over time, beside E(palette clip), on the channels.

    Args:
        x0_latents: the image, [B, Z, 1, h, w]; or, for a host with ``carried_first_frame``, the image carried along the
            trajectory (:mod:`ttm.motion.carried_frame`), [B, Z, t, h, w], which is taken as it is.
        trajectory_latents: the mask trajectory as a palette clip, [B, Z, t, h, w].

    Returns:
        [B, 2 Z, t, h, w].
    """
    if x0_latents.shape != trajectory_latents.shape:
        x0_latents = repeat(_single(x0_latents, "x0_latents"), "b z 1 h w -> b z t h w", t=trajectory_latents.shape[2])
    return torch.cat([x0_latents, trajectory_latents], dim=1)


def _single(latents: Tensor, name: str) -> Tensor:
    if latents.ndim != 5 or latents.shape[2] != 1:
        shape = list(latents.shape)
        raise ValueError(f"{name} has shape {shape}; expected one latent frame, [B, Z, 1, h, w].")
    return latents


def trajectory_coverage(ids: Tensor, num_objects: int, latent_size: Sequence[int], patch_size: Sequence[int]) -> Tensor:
    """How much of every token each object covers, for a trajectory that the autoencoder packs 1 + k *
    group.

    Args:
        ids: integer [B, T, H, W].
        num_objects: L, of the plan.
        latent_size: (t, h, w) of the clip's latents.
        patch_size: (t, h, w) of a token of the host, its ``token_patch``.

    Returns:
        float32 [B, L, t', h', w'], 0..1.
    """
    grid = tuple(int(size) // int(patch) for size, patch in zip(latent_size, patch_size, strict=True))
    return object_coverage(ids, num_objects, (grid[0], grid[1], grid[2]), first_frame_alone=True)


@dataclass(frozen=True)
class Conditions:
    """Everything that a transformer is told besides the noisy latents and the time.

    Attributes:
        latents: the visual condition, [B, C, t, h, w].
        text: the global text, [B, S, D].
        coverage: the objects' places, float [B, L, t', h', w']; None in stage 1.
        local_text: the objects' own texts, [B, L, S, D]; None in stage 1.
        local_mask: their tokens, bool [B, L, S]; None in stage 1.
        image_latents: the host's own image condition [B, Ci, t, h, w], see :mod:`ttm.pipelines.host_image`; None for
            a host that takes none.
        image_embeds: the same picture through the host's image encoder, [B, places, width], or None.
    """

    latents: Tensor
    text: Tensor
    coverage: Tensor | None = None
    local_text: Tensor | None = None
    local_mask: Tensor | None = None
    image_latents: Tensor | None = None
    image_embeds: Tensor | None = None

    def keep(self, visual: Tensor, text: Tensor, nothing: Tensor, nothing_mask: Tensor) -> Conditions:
        """Drop what guidance leaves out, sample by sample: the one place where training and inference do
        it.

        Without the visual condition its latents are zero and, since the ids come from it, so is the
        coverage; the host's own image is zeros too. Without the text both the global and the local texts are the
        text that says nothing.

        Args:
            visual: bool [B]: keep the image, the trajectory and the ids.
            text: bool [B]: keep the global and the local texts.
            nothing: embedding of the text that says nothing, [1, S, D].
            nothing_mask: its tokens, bool [1, S].
        """
        visual = rearrange(visual, "b -> b 1 1 1 1")
        kept = replace(
            self,
            latents=torch.where(visual, self.latents, torch.zeros_like(self.latents)),
            text=torch.where(rearrange(text, "b -> b 1 1"), self.text, nothing),
        )
        for name in ("coverage", "image_latents"):
            if (value := getattr(self, name)) is not None:
                kept = replace(kept, **{name: torch.where(visual, value, torch.zeros_like(value))})
        if self.image_embeds is not None:
            embeds = torch.where(rearrange(visual, "b 1 1 1 1 -> b 1 1"), self.image_embeds, 0.0)
            kept = replace(kept, image_embeds=embeds)
        if self.local_text is not None and self.local_mask is not None:
            nothing = rearrange(nothing, "1 s d -> 1 1 s d")
            nothing_mask = rearrange(nothing_mask, "1 s -> 1 1 s")
            local_text = torch.where(rearrange(text, "b -> b 1 1 1"), self.local_text, nothing)
            local_mask = torch.where(rearrange(text, "b -> b 1 1"), self.local_mask, nothing_mask)
            kept = replace(kept, local_text=local_text, local_mask=local_mask)
        return kept

    def repeat(self, times: int) -> Conditions:
        """The batch ``times`` over: [B, …] -> [times * B, …]."""
        copies = {name: torch.cat([value] * times) for name, value in vars(self).items() if value is not None}
        return replace(self, **copies)

    def chunk(self, times: int) -> tuple[Conditions, ...]:
        """The inverse of :meth:`repeat`: [times * B, …] -> ``times`` of [B, …]."""
        pieces = {name: value.chunk(times) for name, value in vars(self).items() if value is not None}
        return tuple(replace(self, **{name: piece[i] for name, piece in pieces.items()}) for i in range(times))

    def inputs(self, dtype: torch.dtype) -> dict[str, Tensor | None]:
        """As arguments of a host besides latents and timestep; coverage stays float32.

        Latents without a channel are no visual condition: that of the few-shot variant is in the noisy latents.
        """
        own = {"image_latents": self.image_latents, "encoder_hidden_states_image": self.image_embeds}
        return {
            "encoder_hidden_states": self.text.to(dtype),
            "condition_latents": self.latents.to(dtype) if self.latents.shape[1] else None,
            "object_coverage": self.coverage,
            "local_encoder_hidden_states": None if self.local_text is None else self.local_text.to(dtype),
            "local_attention_mask": self.local_mask,
            **{name: value.to(dtype) for name, value in own.items() if value is not None},
        }


Passes = tuple[tuple[float, bool, bool], ...]
"""Passes of guidance: weight, with the visual condition?, with the text?"""


def guidance_passes(guidance_scale: float, image_guidance_scale: float) -> Passes:
    """Which predictions two-scale guidance needs, and with which weights.

    InstructPix2Pix, Eq. 3, of e(visual, text): e(0, 0) + s_V (e(V, 0) - e(0, 0)) + s_T (e(V, T) - e(V, 0)).
    Sorted by prediction, the weights are 1 - s_V, s_V - s_T and s_T; a pass of weight 0 is not run. Two
    scales of 1 need one pass, two equal scales need two (then it is plain classifier-free guidance).

    Args:
        guidance_scale: s_T, of the text.
        image_guidance_scale: s_V, of the image, the trajectory and the ids.

    Returns:
        (weight, visual, text) of each pass with a weight; the weights add up to 1.
    """
    passes = (
        (1.0 - image_guidance_scale, False, False),
        (image_guidance_scale - guidance_scale, True, False),
        (float(guidance_scale), True, True),
    )
    return tuple(item for item in passes if item[0] != 0.0)


def stack_passes(conditions: Conditions, passes: Passes, nothing: Tensor, nothing_mask: Tensor) -> Conditions:
    """The conditions of all passes one after the other, [P * B, …], for one forward."""
    batch, device = conditions.latents.shape[0], conditions.latents.device
    visual = torch.tensor([item[1] for item in passes], device=device).repeat_interleave(batch)
    text = torch.tensor([item[2] for item in passes], device=device).repeat_interleave(batch)
    return conditions.repeat(len(passes)).keep(visual, text, nothing, nothing_mask)


def _is_offloaded(transformer: Any) -> bool:
    """accelerate's hook sits on it, or that of diffusers' group offload."""
    hooks = getattr(transformer, "_diffusers_hook", None)
    return hasattr(transformer, "_hf_hook") or (hooks is not None and hooks.get_hook("group_offloading") is not None)


def guided(transformer: Any, latents: Tensor, timestep: Tensor, stacked: Conditions, passes: Passes) -> Tensor:
    """One guided prediction, all passes in one forward.

    With a transformer that is offloaded each pass is a forward of its own: whoever turned that on wants little memory,
    and activations are then those of one pass.

    Args:
        transformer: a host, see :class:`ttm.models.host.VideoHost`.
        latents: noisy latents as the model sees them, float32 [B, Z, t, h, w].
        timestep: scalar, as the scheduler gives it.
        stacked: what :func:`stack_passes` made of the same ``passes``.

    Returns:
        float32 [B, Z, t, h, w]: what the host predicts (noise - data for flow matching with Wan's sign, v or noise
        otherwise): guidance mixes any of them alike, because each is linear in the data at a given level.
    """
    count, dtype = len(passes), transformer.dtype
    turns = count if _is_offloaded(transformer) else 1
    hidden = torch.cat([latents] * (count // turns)).to(dtype)
    timesteps = timestep.expand(hidden.shape[0])
    told = [part.inputs(dtype) for part in stacked.chunk(turns)]
    predicted = [transformer(hidden, timesteps, **inputs, return_dict=False)[0].float() for inputs in told]
    predictions = rearrange(torch.cat(predicted), "(p b) z t h w -> p b z t h w", p=count)
    weights = torch.tensor([item[0] for item in passes], device=predictions.device)
    return torch.einsum("p, p b z t h w -> b z t h w", weights, predictions)
