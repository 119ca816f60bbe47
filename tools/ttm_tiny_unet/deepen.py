"""One layer more in each block of a U-Net's finest level, which at first change nothing.

    python -m tools.ttm_tiny_unet.deepen ttm/pretrained/ttm-tiny-unet/transformer runs/deeper
    python -m stages.train stage=motion_to_video host=ttm_tiny_unet host.init_from=runs/deeper host.num_masked_blocks=3

A layer is a residual block, a spatial attention and a motion module. Each adds its last projection to what came in;
here that projection begins at zero, so that training goes on from all that the model could do before (Net2DeeperNet,
Chen et al. 2016). The decoder's residual block also takes a skip connection in, through a 1 x 1 convolution: that
begins as the identity of the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ttm.models.unet_motion import MaskedUNetMotionModel

LISTS = ("resnets", "attentions", "motion_modules")


def deepened(model: MaskedUNetMotionModel) -> MaskedUNetMotionModel:
    """A model that computes the same, with one layer more in the first down block and in the last up block.

    Its new encoder attention is the second in the order of ``num_masked_blocks``; where the first is masked so is it.

    Raises:
        ValueError: blocks without attention on the finest level.
    """
    config: dict[str, Any] = dict(model.config)
    if config["down_block_types"][0] != "CrossAttnDownBlockMotion":
        raise ValueError(f"The first block is {config['down_block_types'][0]}; expected CrossAttnDownBlockMotion.")
    layers = config["layers_per_block"]
    layers = [layers] * len(config["down_block_types"]) if isinstance(layers, int) else list(layers)
    masked = config["num_masked_blocks"]
    changed = {
        "layers_per_block": [layers[0] + 1, *layers[1:]],
        "num_masked_blocks": masked + (masked >= layers[0]),
    }
    deeper = MaskedUNetMotionModel.from_config({**config, **changed})
    state = dict(deeper.state_dict())
    state.update({_renamed(name, len(layers) - 1): value for name, value in model.state_dict().items()})
    deeper.load_state_dict(state)
    _begin_as_identity(deeper.down_blocks[0], layers[0])
    _begin_as_identity(deeper.up_blocks[-1], 1)
    return deeper.train(model.training)


def _renamed(name: str, last: int) -> str:
    """Where a weight goes. Up blocks take skip connections from the last to the first. The new encoder layer's comes
    first now, equal to the one that was first and is second: so the decoder's new layer is its second."""
    part, index, *rest = name.split(".")
    if part == "up_blocks" and int(index) == last and rest[0] in LISTS and int(rest[1]) > 0:
        rest[1] = str(int(rest[1]) + 1)
    return ".".join([part, index, *rest])


@torch.no_grad()
def _begin_as_identity(block: Any, place: int) -> None:
    resnet = block.resnets[place]
    last = [resnet.conv2, block.attentions[place].proj_out, block.motion_modules[place].proj_out]
    for weight in (weight for module in last for weight in module.parameters()):
        nn.init.zeros_(weight)
    if resnet.conv_shortcut is not None:
        nn.init.dirac_(resnet.conv_shortcut.weight)
        nn.init.zeros_(resnet.conv_shortcut.bias)


def main(words: Sequence[str] | None = None) -> None:
    """The program; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a folder of MaskedUNetMotionModel")
    parser.add_argument("output", type=Path, help="the folder to write")
    given = parser.parse_args(words)
    if given.output.exists():
        raise SystemExit(f"{given.output} is there already; expected a folder that is not.")
    torch.manual_seed(0)
    deeper: Any = deepened(MaskedUNetMotionModel.from_pretrained(given.model, torch_dtype=torch.float32))
    deeper.save_pretrained(given.output)
    print(f"{given.output}: {sum(p.numel() for p in deeper.parameters()) / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
