"""Stable Diffusion with random weights, small enough for a CPU: see speed_layout.py."""

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_pipelines import tiny_networks, tiny_text


def stable_diffusion(folder: Path, *, narrow: bool) -> dict[str, Any]:
    """Save a pipeline in ``folder`` and return its settings: version 1.5 at quarter width, or the tests' tiny one."""
    from diffusers import StableDiffusionPipeline

    torch.manual_seed(0)
    folder.mkdir()
    bare = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    parts = {**tiny_text(folder / "text"), **tiny_networks(in_channels=4), **(quarter() if narrow else {})}
    StableDiffusionPipeline(**parts, **bare).save_pretrained(folder / "model")
    return {"kind": "stable_diffusion", "model": str(folder / "model"), "size_px": 128 if narrow else 64}


def quarter() -> dict[str, Any]:
    """Text encoder, U-Net and VAE of Stable Diffusion 1.5 with a quarter of the channels."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    width = 192
    text = CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=12, num_attention_heads=width // 64
    )
    blocks: dict[str, Any] = {"block_out_channels": (32, 64, 128, 128), "layers_per_block": 2}
    vae = AutoencoderKL(
        **blocks, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4
    )
    unet = UNet2DConditionModel(
        block_out_channels=(80, 160, 320, 320), norm_num_groups=16, cross_attention_dim=width, sample_size=16
    )
    return {"text_encoder": CLIPTextModel(text), "unet": unet, "vae": vae}
