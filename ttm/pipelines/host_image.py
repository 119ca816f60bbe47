"""The image that some hosts take by themselves: the first frame of the clip that a stage makes.

That is the picture in stage 2 and the palette picture of the first-frame masks in stage 1, so that each stage asks of
its host what the host was trained for. The two pictures of Through-The-Mask come beside it, through the embedder of
their own. Three kinds of host, told apart by ``image_channels`` and the configuration:
- none (text-to-video, U-Net): nothing;
- Wan 2.1 image-to-video, ``in_channels`` 36: 4 channels that say which frames are known (one a frame that a latent
  frame packs), 16 of the clip [picture, grey, grey, …], and the picture through the host's CLIP;
- Wan 2.2 TI2V, ``known_first_frame``: 1 channel that says where the picture is known, and its latents.

Letters: B batch, H W pixels, Z latent channels, t h w latent frames, rows and columns, Ci of the image condition.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ttm.motion.representation import MotionRepresentation
from ttm.pipelines.autoencoders import LatentFormat, encode_video
from ttm.pipelines.conditioning import input_device

IMAGE_TEXT_TOKENS = 512
"""Text tokens of a host with an image embedder: diffusers' attention takes all before the last 512 for the image."""


def check_image_channels(vae: Any, transformer: Any) -> None:
    """Raise ValueError unless a host that takes an image was made for this autoencoder's latents."""
    form, channels = LatentFormat.of(vae), transformer.image_channels
    expected = 1 + form.channels if transformer.config.get("known_first_frame") else form.group + form.channels
    if channels not in (0, expected):
        raise ValueError(
            f"The transformer takes {channels} channels of an image; expected {expected} with this autoencoder, or 0."
        )


def check_host_image(vae: Any, transformer: Any, image_encoder: Any, image_processor: Any, max_length: int) -> None:
    """Raise ValueError unless a host that takes an image can be given one by the other components."""
    check_image_channels(vae, transformer)
    width = transformer.config.get("image_dim")
    if width is None:
        return
    if image_encoder is None or image_processor is None:
        raise ValueError("The transformer has an image embedder; expected an image_encoder and an image_processor.")
    if image_encoder.config.hidden_size != width:
        raise ValueError(
            f"The image_encoder's width is {image_encoder.config.hidden_size}; expected {width}, the transformer's."
        )
    if max_length != IMAGE_TEXT_TOKENS:
        raise ValueError(f"max_sequence_length is {max_length}; expected {IMAGE_TEXT_TOKENS} with an image embedder.")


def check_first_frame_known(motion: MotionRepresentation) -> None:
    """Raise ValueError unless the first picture of a motion can be drawn from the masks of the first frame."""
    if not motion.shows_masks:
        raise ValueError(
            f"motion is {motion.name}, whose first picture nobody knows before stage 1 has made it, and this host is"
            " given a first frame; expected motion masks, or a host of text-to-video."
        )


def host_image(
    vae: Any,
    transformer: Any,
    frames: Tensor,
    num_latent_frames: int,
    image_encoder: Any = None,
    image_processor: Any = None,
) -> dict[str, Tensor]:
    """What a host is given of the first frame, as fields of ``Conditions``; nothing for a host that takes none.

    Args:
        vae: the autoencoder.
        transformer: the host.
        frames: the first frame, float [B, 3, 1, H, W] in -1..1, on the autoencoder's device.
        num_latent_frames: t of the clip.
        image_encoder, image_processor: CLIP's, of hosts with an image embedder.

    Returns:
        image_latents [B, Ci, t, h, w], and image_embeds [B, places, width] for a host with an image embedder.
    """
    if not transformer.image_channels:
        return {}
    if transformer.config.get("known_first_frame"):
        return {"image_latents": known_first_frame(encode_video(vae, frames), num_latent_frames)}
    group = LatentFormat.of(vae).group
    latents = encode_video(vae, F.pad(frames, (0, 0, 0, 0, 0, group * (num_latent_frames - 1))))
    known = torch.zeros_like(latents[:, :1]).repeat(1, group, 1, 1, 1)
    known[:, :, 0] = 1
    found = {"image_latents": torch.cat([known, latents], dim=1)}
    if transformer.config.get("image_dim") is not None:
        found["image_embeds"] = embed_pictures(frames[:, :, 0], image_encoder, image_processor).to(latents.device)
    return found


def known_first_frame(first: Tensor, num_latent_frames: int) -> Tensor:
    """E(first frame) [B, Z, 1, h, w] and that it is known, as a condition [B, 1 + Z, t, h, w]."""
    known = torch.cat([torch.ones_like(first[:, :1]), first], dim=1)
    return F.pad(known, (0, 0, 0, 0, 0, num_latent_frames - 1))


def embed_pictures(pictures: Tensor, image_encoder: Any, image_processor: Any) -> Tensor:
    """CLIP's last layer but one, as Wan's image embedder was trained on.

    Args:
        pictures: float [B, 3, H, W] in -1..1.

    Returns:
        float32 [B, places, width].
    """
    pixels = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    images = list(rearrange(pixels, "b c h w -> b h w c").numpy())
    values = image_processor(images=images, input_data_format="channels_last", return_tensors="pt").pixel_values
    values = values.to(input_device(image_encoder, pictures.device), image_encoder.dtype)
    hidden: Tensor = image_encoder(pixel_values=values, output_hidden_states=True).hidden_states[-2]
    return hidden.float()
