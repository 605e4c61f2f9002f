"""Tiny random diffusers pipelines: 0.2 M parameters, latents of a quarter of the picture's side."""

import json

import numpy as np

from actors.generators.inpaint.painters.base import Window
from actors.records import Difficulty

SIZE_PX = 64
CLASSES = ("red_cell", "platelet")


def tiny_text(folder):
    """A text encoder, and a tokenizer of single letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder.mkdir()
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1,
    )  # fmt: skip
    return {"text_encoder": CLIPTextModel(config), "tokenizer": tokenizer}


def tiny_networks(**unet):
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    blocks = {"block_out_channels": (16, 32, 32), "norm_num_groups": 8, "layers_per_block": 1}
    vae = AutoencoderKL(
        **blocks, down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4, sample_size=SIZE_PX,
    )  # fmt: skip
    vae.decoder.conv_out.weight.data.mul_(8)  # more contrast than random weights give
    unet = UNet2DConditionModel(
        sample_size=SIZE_PX // 4, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4, **unet,
    )  # fmt: skip
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = DDIMScheduler(**schedule, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    return {"vae": vae, "unet": unet, "scheduler": scheduler}


def open_gates(unet):
    """GLIGEN's gates are zero before training: boxes and phrases would say nothing. Let them speak aloud."""
    unet.position_net.linears[-1].weight.data.mul_(100)
    for module in unet.modules():
        if hasattr(module, "alpha_attn"):
            module.alpha_attn.data.fill_(3.0)
            module.alpha_dense.data.fill_(3.0)


def window(seed, label=0, box=(16, 24, 48, 56), difficulty=Difficulty.HARD):
    pixels = np.random.default_rng(5).integers(0, 256, (SIZE_PX, SIZE_PX, 3), np.uint8)
    mask = np.zeros((SIZE_PX, SIZE_PX), np.bool_)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = True
    box = np.array(box, np.float32)
    return Window(pixels=pixels, mask=mask, box=box, label=label, difficulty=difficulty, seed=seed)
