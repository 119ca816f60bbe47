"""ViCLIP (InternVid, Wang et al. 2023): a CLIP whose picture side reads all frames of a clip at once.

Names and shapes are those of the public weights ``OpenGVLab/ViCLIP-L-14-hf``, which load with ``strict=True``. The
picture side is CLIP's vision transformer over the patches of all frames: a spatial position for each patch, the same
in every frame, a temporal position for each frame, and one class token for the whole clip. In its training most
patches were masked; here none are.

Letters: B clips or texts, T frames, H W pixels, h w patches, S tokens, C width, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn


@dataclass(frozen=True)
class ViCLIPShape:
    """Sizes of the network; the defaults are those of ViCLIP L/14."""

    side: int = 224
    patch: int = 14
    num_frames: int = 8
    width: int = 1024
    layers: int = 24
    heads: int = 16
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    vocabulary: int = 49408
    text_length: int = 32
    features: int = 768


def quick_gelu(x: Tensor) -> Tensor:
    """``x * sigmoid(1.702 x)``, the activation of CLIP's published models."""
    return x * torch.sigmoid(1.702 * x)


class FeedForward(nn.Module):
    """Four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, C] -> [B, S, C]."""
        projected: Tensor = self.c_proj(quick_gelu(self.c_fc(x)))
        return projected


class ResidualBlock(nn.Module):
    """Attention and feed-forward, each normalised before and added after."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = FeedForward(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, S, C] -> [B, S, C]; ``mask`` bool [S, S] is True where a query may not look."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Blocks, one after the other."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ResidualBlock(width, heads) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, S, C] -> [B, S, C]."""
        for block in self.resblocks:
            x = block(x, mask)
        return x


class VisionEncoder(nn.Module):
    """Clips to features."""

    def __init__(self, shape: ViCLIPShape) -> None:
        super().__init__()
        patches = (shape.side // shape.patch) ** 2
        patch = (1, shape.patch, shape.patch)
        self.conv1 = nn.Conv3d(3, shape.width, kernel_size=patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(shape.width))
        self.positional_embedding = nn.Parameter(torch.zeros(patches + 1, shape.width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, shape.num_frames, shape.width))
        self.ln_pre = nn.LayerNorm(shape.width)
        self.transformer = Transformer(shape.width, shape.layers, shape.heads)
        self.ln_post = nn.LayerNorm(shape.width)
        self.proj = nn.Parameter(torch.zeros(shape.width, shape.features))

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, T, H, W] -> [B, D]."""
        patches = rearrange(self.conv1(pixels), "b c t h w -> b t (h w) c")
        space = self.positional_embedding[1:]
        time = rearrange(self.temporal_positional_embedding, "b t c -> b t 1 c")
        tokens = rearrange(patches + space + time, "b t s c -> b (s t) c")
        whole = (self.class_embedding + self.positional_embedding[0]).expand(len(tokens), 1, -1)
        seen = self.transformer(self.ln_pre(torch.cat([whole, tokens], dim=1)))
        projected: Tensor = self.ln_post(seen[:, 0]) @ self.proj
        return projected


class TextEncoder(nn.Module):
    """Token ids to features: causal, read at the end-of-text token, which has the highest id."""

    def __init__(self, shape: ViCLIPShape) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(shape.vocabulary, shape.text_width)
        self.positional_embedding = nn.Parameter(torch.zeros(shape.text_length, shape.text_width))
        self.transformer = Transformer(shape.text_width, shape.text_layers, shape.text_heads)
        self.ln_final = nn.LayerNorm(shape.text_width)
        self.text_projection = nn.Parameter(torch.zeros(shape.text_width, shape.features))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, S] -> [B, D]."""
        length = tokens.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        x = self.ln_final(self.transformer(x, later))
        end = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=1)]
        projected: Tensor = end @ self.text_projection
        return projected


class ViCLIP(nn.Module):
    """Both sides, and the temperature that training used (it changes no cosine).

    Args:
        shape: sizes; None = L/14.
    """

    def __init__(self, shape: ViCLIPShape | None = None) -> None:
        super().__init__()
        self.shape = shape or ViCLIPShape()
        self.vision_encoder = VisionEncoder(self.shape)
        self.text_encoder = TextEncoder(self.shape)
        self.temp = nn.Parameter(torch.tensor(0.01))

    def embed_clips(self, pixels: Tensor) -> Tensor:
        """[B, 3, T, H, W], normalised -> [B, D], not normalised.

        Raises:
            ValueError: another number of frames, or another size.
        """
        expected = (3, self.shape.num_frames, self.shape.side, self.shape.side)
        if pixels.ndim != 5 or pixels.shape[1:] != expected:
            raise ValueError(f"pixels has shape {list(pixels.shape)}; expected [B, {', '.join(map(str, expected))}].")
        embedded: Tensor = self.vision_encoder(pixels)
        return embedded

    def embed_texts(self, tokens: Tensor) -> Tensor:
        """[B, S] with S up to the text length -> [B, D], not normalised."""
        embedded: Tensor = self.text_encoder(tokens)
        return embedded
