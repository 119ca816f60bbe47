"""Train the small SAM2 of ttm-tiny on the synthetic world, from nothing.

    python -m tools.ttm_tiny.train_segmenter --minutes 60

after tools.ttm_tiny.train_clip, whose model it puts beside SAM2 into the segmenter's folder.
Stopped at any moment, the same command goes on from its last checkpoint. The learning rate follows the share
of the training time that is used up, so that a busy machine changes how much is learned and not how it ends.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tools.ttm_tiny.clip_crops import CONTRAST, NOTHING
from tools.ttm_tiny.measure_segmenter import evaluate
from tools.ttm_tiny.segmenter_objectives import DecoderTap, clip_loss, image_loss
from tools.ttm_tiny.segmenter_scenes import clip_batch, image_batch
from tools.ttm_tiny.train_clip import CONFIG as CLIP_CONFIG
from tools.ttm_tiny.train_clip import MEAN, STD
from ttm.atomic_write import written_beside
from ttm.data.synthetic import SyntheticWorld
from ttm.segmentation import Segmenter
from ttm.segmentation.sam2_loading import VIDEO_PREDICTOR, build_sam2

SEED = 20
IMAGES, POINTS = 12, 12  # a step on images: so many images, so many clicks on each
CLIPS = 3  # a step on clips
CLIPS_FROM = 0.25  # of the training time: first learn to segment at all
PEAK_RATE = 1.2e-3
# Low thresholds, chosen on val scenes: a mask too many costs little, since each is then held against the phrases, while
# an object without one ends the call (at 0.5 and 0.6 in 11 of 100 scenes).
MASK_GENERATOR = {
    "points_per_side": 16,
    "points_per_batch": 256,
    "pred_iou_thresh": 0.2,
    "stability_score_thresh": 0.3,
    "box_nms_thresh": 0.8,
}


def tiny_config(image_size: int = 128) -> dict[str, Any]:
    """SAM2 at 1.5M parameters, as the ``model`` node of a SAM2 config.

    Three stages instead of four (strides 4, 8 and 16, no map that the neck would throw away), every map fed
    from the coarser one, and a memory encoder that halves the mask twice by 4 instead of four times by 2.
    """
    place: dict[str, Any] = {
        "_target_": "sam2.modeling.position_encoding.PositionEmbeddingSine",
        "num_pos_feats": 64, "normalize": True, "scale": None, "temperature": 10000,
    }  # fmt: skip
    rotary: dict[str, Any] = {
        "_target_": "sam2.modeling.sam.transformer.RoPEAttention",
        "rope_theta": 10000.0, "feat_sizes": [image_size // 16] * 2, "embedding_dim": 64, "num_heads": 1,
        "downsample_rate": 1, "dropout": 0.0,
    }  # fmt: skip
    trunk = {
        "_target_": "sam2.modeling.backbones.hieradet.Hiera",
        "embed_dim": 32, "num_heads": 1, "q_pool": 2, "stages": [2, 3, 2], "global_att_blocks": [3, 4, 6],
        "window_spec": [8, 4, 8], "window_pos_embed_bkg_spatial_size": [8, 8],
    }  # fmt: skip
    neck = {
        "_target_": "sam2.modeling.backbones.image_encoder.FpnNeck",
        "position_encoding": place, "d_model": 64, "backbone_channel_list": [128, 64, 32],
        "fpn_top_down_levels": [0, 1, 2], "fpn_interp_model": "nearest",
    }  # fmt: skip
    layer = {
        "_target_": "sam2.modeling.memory_attention.MemoryAttentionLayer",
        "activation": "relu", "dim_feedforward": 128, "dropout": 0.0, "d_model": 64, "pos_enc_at_attn": False,
        "pos_enc_at_cross_attn_keys": True, "pos_enc_at_cross_attn_queries": False, "self_attention": rotary,
        "cross_attention": {**rotary, "rope_k_repeat": True, "kv_in_dim": 32},
    }  # fmt: skip
    memory_encoder = {
        "_target_": "sam2.modeling.memory_encoder.MemoryEncoder",
        "in_dim": 64, "out_dim": 32, "position_encoding": {**place, "num_pos_feats": 32},
        "mask_downsampler": {
            "_target_": "sam2.modeling.memory_encoder.MaskDownSampler",
            "kernel_size": 4, "stride": 4, "padding": 0, "embed_dim": 64,
        },
        "fuser": {
            "_target_": "sam2.modeling.memory_encoder.Fuser", "num_layers": 1,
            "layer": {
                "_target_": "sam2.modeling.memory_encoder.CXBlock", "dim": 64, "kernel_size": 7, "padding": 3,
                "layer_scale_init_value": 0.1, "use_dwconv": True,
            },
        },
    }  # fmt: skip
    return {
        "_target_": VIDEO_PREDICTOR,
        "image_encoder": {
            "_target_": "sam2.modeling.backbones.image_encoder.ImageEncoder",
            "scalp": 0, "trunk": trunk, "neck": neck,
        },
        "memory_attention": {
            "_target_": "sam2.modeling.memory_attention.MemoryAttention",
            "d_model": 64, "pos_enc_at_input": True, "num_layers": 1, "layer": layer,
        },
        "memory_encoder": memory_encoder,
        "num_maskmem": 7, "image_size": image_size,
        "sigmoid_scale_for_mem_enc": 20.0, "sigmoid_bias_for_mem_enc": -10.0,
        "use_mask_input_as_output_without_sam": True, "directly_add_no_mem_embed": True,
        "no_obj_embed_spatial": True,
        "use_high_res_features_in_sam": True, "multimask_output_in_sam": True,
        "iou_prediction_use_sigmoid": True,
        "use_obj_ptrs_in_encoder": True, "add_tpos_enc_to_obj_ptrs": True, "proj_tpos_enc_in_obj_ptrs": True,
        "use_signed_tpos_enc_to_obj_ptrs": True, "only_obj_ptrs_in_the_past_for_eval": True,
        "pred_obj_scores": True,
        "pred_obj_scores_mlp": True, "fixed_no_obj_ptr": True, "multimask_output_for_tracking": True,
        "use_multimask_token_for_obj_ptr": True, "multimask_min_pt_num": 0, "multimask_max_pt_num": 1,
        "use_mlp_for_obj_ptr_proj": True, "compile_image_encoder": False,
    }  # fmt: skip


LEAST_PROBABILITY = 0.02
"""The right region of a held-out object is below it in fewer than 5 cases of 100."""


class Run:
    """One training run: the model, its moving average, its optimiser, and where it stands."""

    def __init__(self, folder: Path, minutes: float, start: Path | None = None) -> None:
        torch.manual_seed(SEED)
        self.folder, self.seconds = folder, minutes * 60
        self.model = build_sam2(tiny_config()).train()
        head: Any = self.model.sam_mask_decoder
        # Tracking wipes the mask of an object that scores below 0, which at first would be every object.
        nn.init.constant_(head.pred_obj_score_head.layers[-1].bias, 5.0)
        if start is not None:
            self.model.load_state_dict(Segmenter.from_pretrained(start).sam2.state_dict())
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.02)
        self.step, self.used = 0, 0.0
        if (folder / "state.json").is_file():
            self._resume()

    def _resume(self) -> None:
        state = json.loads((self.folder / "state.json").read_text())
        tensors = load_file(self.folder / state["file"])
        self.model.load_state_dict(_part(tensors, "model."))
        self.average = _part(tensors, "average.")
        names = [name for name, _ in self.model.named_parameters()]
        first, second = _part(tensors, "first."), _part(tensors, "second.")
        saved = self.optimizer.state_dict()
        saved["state"] = {
            n: {
                "step": torch.tensor(float(state["step"])),
                "exp_avg": first[name],
                "exp_avg_sq": second[name],
            }
            for n, name in enumerate(names)
            if name in first
        }
        self.optimizer.load_state_dict(saved)
        self.step, self.used = state["step"], state["used"]

    def save(self) -> None:
        """Write a whole checkpoint, then point to it, then remove the one before."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        for name, value in self.model.named_parameters():
            if kept := self.optimizer.state.get(value):
                tensors |= {f"first.{name}": kept["exp_avg"], f"second.{name}": kept["exp_avg_sq"]}
        file = f"step-{self.step:07d}.safetensors"
        with written_beside(self.folder / file) as path:
            save_file({name: value.detach().contiguous() for name, value in tensors.items()}, path)
        with written_beside(self.folder / "state.json") as path:
            path.write_text(json.dumps({"step": self.step, "used": self.used, "file": file}))
        for other in self.folder.glob("step-*.safetensors"):
            if other.name != file:
                other.unlink()

    def update(self, parts: dict[str, Tensor]) -> None:
        """One step down the sum of the parts."""
        loss = parts["mask"] + parts["iou"] + parts["object"]
        share = min(1.0, self.used / self.seconds)
        rate = PEAK_RATE * min(1.0, (self.step + 1) / 150) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        keep = min(0.999, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def train(
    folder: Path, minutes: float, start: Path | None = None, most_steps: int | None = None, every: int = 100
) -> Run:
    """Train for so many minutes in all (of this and earlier calls), with checkpoints and figures on the way.

    Args:
        folder: of the checkpoints; a run that is found there goes on.
        minutes: of training, over all starts.
        start: a segmenter's folder whose SAM2 a new run starts from; None: from nothing.
        most_steps: stop after so many steps all the same.
        every: so many steps, a line of figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, minutes, start)
    tap = DecoderTap(run.model)
    still = SyntheticWorld("train", num_frames=2, num_objects=(1, 4), seed=SEED)
    moving = SyntheticWorld("train", num_objects=(1, 4), seed=SEED + 1)
    seen: dict[str, list[float]] = {}
    saved = run.used
    while run.used < run.seconds and (most_steps is None or run.step < most_steps):
        began = time.monotonic()
        rng = np.random.default_rng([SEED, 3, run.step])
        if run.used > CLIPS_FROM * run.seconds and run.step % 3 == 0:
            kind, length = "clip", int(rng.integers(3, 7))
            parts = clip_loss(run.model, *clip_batch(moving, SEED, run.step, CLIPS, length), tap)
        else:
            kind = "image"
            parts = image_loss(run.model, *image_batch(still, SEED, run.step, IMAGES), rng, POINTS)
        run.update(parts)
        run.step += 1
        run.used += time.monotonic() - began
        for name, value in parts.items():
            seen.setdefault(f"{kind} {name}", []).append(float(value.detach()))
        if run.step % every == 0:
            figures = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in sorted(seen.items()))
            print(f"step {run.step}, {run.used / 60:.1f} of {minutes} min: {figures}", flush=True)
            seen = {}
        if run.used - saved > 120:
            run.save()
            saved = run.used
    run.save()
    return run


def assemble(sam2: dict[str, Tensor], clip: dict[str, Tensor]) -> Segmenter:
    """The segmenter of ttm-tiny from the weights of its two models."""
    segmenter = Segmenter(
        tiny_config(),
        CLIP_CONFIG,
        {"mean": MEAN, "std": STD},
        mask_generator=MASK_GENERATOR,
        contrast_phrases=[phrase for phrase in CONTRAST if phrase != NOTHING],
        background_phrases=[NOTHING],
        least_probability=LEAST_PROBABILITY,
    )
    segmenter.sam2.load_state_dict(sam2)
    segmenter.clip.load_state_dict(clip)
    return segmenter


def store(segmenter: Segmenter, folder: Path) -> None:
    """Write the segmenter in 16 bit beside ``folder``, then put it in its place."""
    beside = folder.with_name(folder.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    copy.deepcopy(segmenter).to(torch.float16).save_pretrained(beside)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def main() -> None:
    """Train, put the segmenter together, print how well it segments and tracks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="training time in all, over all starts")
    parser.add_argument("--run", type=Path, default=Path("runs/ttm-tiny/sam2"), help="folder of the checkpoints")
    parser.add_argument(
        "--clip",
        type=Path,
        default=Path("runs/ttm-tiny/clip/clip.safetensors"),
        help="weights of train_clip; where there are none, the CLIP of --start stays",
    )
    parser.add_argument("--start", type=Path, help="segmenter whose SAM2 a new run starts from")
    parser.add_argument("--output", type=Path, default=Path("ttm/pretrained/ttm-tiny/segmenter"))
    arguments = parser.parse_args()
    if arguments.clip.is_file():
        clip = load_file(arguments.clip)
    elif arguments.start is not None:
        clip = Segmenter.from_pretrained(arguments.start).clip.state_dict()
    else:
        parser.error(f"{arguments.clip} is not there; expected the weights of train_clip, or --start with a segmenter")
    run = train(arguments.run, arguments.minutes, arguments.start)
    segmenter = assemble(run.average, clip)
    store(segmenter, arguments.output)
    print(json.dumps(evaluate(Segmenter.from_pretrained(arguments.output), "test"), indent=2))


if __name__ == "__main__":
    main()
