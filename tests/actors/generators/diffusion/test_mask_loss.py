"""DetDiffusion's perception-aware loss: what is tapped, how masks are drawn, and what the loss is by hand."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel, UNet2DModel
from torch.nn import functional

from actors.generators.diffusion.box_masks import box_masks
from actors.generators.diffusion.mask_loss import FeatureTap, MaskHead, dice_loss, perception_loss, stack_masks

torch.set_num_threads(1)

WIDTHS = (8, 8, 16, 24)
PLAIN = {"in_channels": 3, "out_channels": 3, "layers_per_block": 1, "norm_num_groups": 8}


def plain_unet(widths=WIDTHS, attention=False):
    torch.manual_seed(0)
    up, down = ("AttnUpBlock2D", "AttnDownBlock2D") if attention else ("UpBlock2D", "DownBlock2D")
    blocks = {"down_block_types": (down,) * len(widths), "up_block_types": (up,) * len(widths)}
    return UNet2DModel(
        sample_size=32, block_out_channels=widths, **blocks, **PLAIN, attention_head_dim=8, add_attention=attention
    )


def text_unet():
    """Blocks as in Stable Diffusion: attention to the text in all but the coarsest."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=32, block_out_channels=WIDTHS, **PLAIN, cross_attention_dim=8, attention_head_dim=8
    )


def denoise(unet, batch=2, side=32):
    torch.manual_seed(1)
    noisy, steps = torch.randn(batch, 3, side, side), torch.arange(batch) + 5
    if isinstance(unet, UNet2DConditionModel):
        return unet(noisy, steps, torch.randn(batch, 7, 8)).sample
    return unet(noisy, steps).sample


def masks_and_valid():
    """Two images on 8 x 8 cells: one with two boxes, one without any."""
    boxes = np.array([[0, 0, 16, 32], [16, 0, 32, 8]], np.float32)
    return stack_masks([box_masks(boxes, 32, 32, (8, 8)), box_masks(boxes[:0], 32, 32, (8, 8))])


# --- the tap


@pytest.mark.parametrize("build", [plain_unet, text_unet, lambda: plain_unet(attention=True)])
def test_one_map_for_each_resolution_coarse_to_fine_detdiffusion_sec_3_3(build):
    unet = build()
    tap = FeatureTap(unet)
    denoise(unet)
    maps = tap.take()
    assert [tuple(one.shape) for one in maps] == [(2, 24, 4, 4), (2, 16, 8, 8), (2, 8, 16, 16), (2, 8, 32, 32)]
    assert tap.channels == (24, 16, 8, 8)
    assert all(one.requires_grad for one in maps)


@pytest.mark.parametrize(("widths", "sides"), [((8, 16), [16, 32]), ((8,) * 6, [4, 8, 16, 32])])
def test_another_number_of_resolutions_gives_the_finest_up_to_four(widths, sides):
    unet = plain_unet(widths)
    tap = FeatureTap(unet)
    denoise(unet)
    assert [one.shape[-1] for one in tap.take()] == sides


@pytest.mark.parametrize("build", [plain_unet, text_unet])
def test_the_tap_changes_nothing_and_can_be_removed(build):
    unet = build()
    names, before = list(unet.state_dict()), denoise(unet)
    tap = FeatureTap(unet)
    assert torch.equal(denoise(unet), before)
    tap.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())
    assert list(unet.state_dict()) == names
    assert torch.equal(denoise(unet), before)
    with pytest.raises(ValueError, match="run the U-Net first"):
        tap.take()


def test_maps_are_given_once():
    unet = plain_unet()
    tap = FeatureTap(unet)
    denoise(unet)
    tap.take()
    with pytest.raises(ValueError, match="0 of 4"):
        tap.take()


# --- the head


def test_levels_are_fused_coarse_to_fine_detdiffusion_eq_3():
    """F_1 = f_1, F_2 = Conv(f_2, Upsample(F_1)), with a convolution that copies one channel of each."""
    head = MaskHead((8, 8), query_size=2, width=8)
    (block,) = head.fuse
    block[0], block[1] = torch.nn.Identity(), torch.nn.Identity()
    with torch.no_grad():
        block[2].weight.zero_()
        block[2].bias.zero_()
        block[2].weight[0, 0, 1, 1] = 1.0  # the first of f_2
        block[2].weight[1, 8, 1, 1] = 1.0  # the first of F_1
        head.query.weight.zero_()
        head.query.bias.zero_()
        head.query.weight[0, 0] = head.query.weight[1, 1] = 1.0
    coarse, fine = torch.randn(1, 8, 2, 2), torch.randn(1, 8, 4, 4)
    logits = head([coarse, fine], torch.eye(2)[None]) * 8**0.5
    assert torch.allclose(logits[0, 0], fine[0, 0], atol=1e-6)
    assert torch.allclose(logits[0, 1], coarse[0, 0].repeat_interleave(2, 0).repeat_interleave(2, 1), atol=1e-6)


def test_one_resolution_needs_no_fusion():
    head = MaskHead((8,), query_size=4)
    assert head([torch.randn(2, 8, 6, 5)], torch.randn(2, 3, 4)).shape == (2, 3, 6, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_reach_the_unet_the_head_and_the_objects(dtype):
    unet = plain_unet()
    tap, head = FeatureTap(unet), MaskHead((24, 16, 8, 8), query_size=6)
    objects = torch.randn(2, 2, 6, requires_grad=True)
    masks, valid = masks_and_valid()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        denoise(unet, side=8)
        logits = head(tap.take(), objects)
        loss = perception_loss(logits, masks, valid, torch.tensor([0.9, 0.5]))
    assert (logits.dtype, loss.dtype) == (torch.float32, torch.float32)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())
    assert unet.conv_in.weight.grad.abs().sum() > 0
    assert unet.conv_out.weight.grad is None  # the head reads what comes before it
    assert objects.grad[0].abs().sum() > 0
    assert objects.grad[1].abs().sum() == 0  # no instance there


def test_bfloat16_agrees_with_float32():
    unet, head = plain_unet(), MaskHead((24, 16, 8, 8), query_size=6)
    tap, objects, (masks, valid) = FeatureTap(unet), torch.randn(2, 2, 6), masks_and_valid()
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), torch.no_grad():
            denoise(unet, side=8)
            losses.append(float(perception_loss(head(tap.take(), objects), masks, valid, torch.ones(2))))
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_head_learns_to_tell_two_objects_apart():
    torch.manual_seed(0)
    unet = plain_unet()
    tap, head = FeatureTap(unet), MaskHead((24, 16, 8, 8), query_size=2)
    optimizer = torch.optim.Adam([*unet.parameters(), *head.parameters()], 1e-2)
    masks, valid = masks_and_valid()
    for _ in range(40):
        denoise(unet, side=8)
        logits = head(tap.take(), torch.eye(2)[None].expand(2, 2, 2))
        loss = perception_loss(logits, masks, valid, torch.ones(2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ((logits[0] > 0) == (masks[0] > 0)).float().mean() > 0.95


# --- the loss


def test_cross_entropy_and_dice_by_hand_detdiffusion_eq_4():
    # 2 x 2 pixels, logits 0: entropy is ln 2; |AB| = 0.5, |A| = 2, |B| = 1, so that dice is 1 - 2 / 4
    logits, masks = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    loss = perception_loss(logits, masks, torch.tensor([[True]]), torch.tensor([0.25]))
    assert float(loss) == pytest.approx(0.5 * (np.log(2) + 0.5))
    assert float(dice_loss(masks, masks)) == 0.0
    assert float(dice_loss(1 - masks, masks)) == pytest.approx(1 - 1 / 5)


def test_perfect_masks_cost_nothing_and_inverted_ones_much():
    masks, valid = masks_and_valid()
    right, wrong = (float(perception_loss(sign * (masks * 40 - 20), masks, valid, torch.ones(2))) for sign in (1, -1))
    assert right < 1e-6
    assert wrong > 5


def test_the_mean_is_over_valid_instances_and_images_without_any_give_zero():
    logits, masks = torch.randn(2, 2, 4, 4), (torch.randn(2, 2, 4, 4) > 0).float()
    ones, none = torch.ones(2), torch.tensor([[True, False], [False, False]])
    alone = perception_loss(logits[:1, :1], masks[:1, :1], torch.tensor([[True]]), torch.ones(1))
    assert float(perception_loss(logits, masks, none, ones)) == pytest.approx(float(alone) / 2)
    assert float(perception_loss(logits, masks, torch.zeros(2, 2, dtype=torch.bool), ones)) == 0.0
    both = [float(perception_loss(logits[:1, [k]], masks[:1, [k]], torch.tensor([[True]]), ones[:1])) for k in (0, 1)]
    pair = perception_loss(logits[:1], masks[:1], torch.tensor([[True, True]]), ones[:1])
    assert float(pair) == pytest.approx(np.mean(both))


def test_parts_of_a_batch_average_to_the_whole():
    logits, masks = torch.randn(4, 3, 4, 4), (torch.randn(4, 3, 4, 4) > 0).float()
    valid, alphas = torch.arange(3) < torch.tensor([3, 0, 1, 2])[:, None], torch.rand(4)
    whole = perception_loss(logits, masks, valid, alphas)
    parts = [perception_loss(logits[p], masks[p], valid[p], alphas[p]) for p in (slice(0, 2), slice(2, 4))]
    assert float(whole) == pytest.approx(float(sum(parts)) / 2)


def test_the_weight_goes_to_zero_at_the_noisiest_step_detdiffusion_eq_4():
    logits, masks = torch.randn(1, 1, 4, 4, requires_grad=True), torch.ones(1, 1, 4, 4)

    def at(scheduler, timestep):
        alphas = scheduler.alphas_cumprod[timestep][None]
        return perception_loss(logits, masks, torch.tensor([[True]]), alphas)

    linear = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    usual = DDPMScheduler(**linear)  # Stable Diffusion's: sqrt(alphabar_T) is 0.068
    zero = DDIMScheduler(**linear, rescale_betas_zero_snr=True)
    cosine = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    assert (at(usual, 999) / at(usual, 0)).item() < 0.07
    assert (at(cosine, 999) / at(cosine, 0)).item() < 0.001
    steps = [at(usual, timestep).item() for timestep in range(0, 1000, 100)]
    assert steps == sorted(steps, reverse=True)
    last = at(zero, 999)
    last.backward()
    assert last.item() == 0.0
    assert (logits.grad == 0).all()


def test_lambda_0_gives_the_base_model_bit_for_bit_detdiffusion_eq_5():
    base = plain_unet()
    told = deepcopy(base)
    tap, head = FeatureTap(told), MaskHead((24, 16, 8, 8), query_size=2)
    functional.mse_loss(denoise(base, side=8), torch.zeros(2, 3, 8, 8)).backward()
    loss = functional.mse_loss(denoise(told, side=8), torch.zeros(2, 3, 8, 8))
    masks, valid = masks_and_valid()
    perception = perception_loss(head(tap.take(), torch.randn(2, 2, 2)), masks, valid, torch.ones(2))
    (loss + 0.0 * perception).backward()
    gradients = zip(base.parameters(), told.parameters(), strict=True)
    assert all(torch.equal(one.grad, other.grad) for one, other in gradients)


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match="differ"):
        perception_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 8, 8), torch.ones(1, 1).bool(), torch.ones(1))
