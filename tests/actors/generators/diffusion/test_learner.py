"""What our own diffusion models share: the forward process and the way back, and a step over one or more workers."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from actors.fitting import Worker
from actors.generators.diffusion import learner as module
from actors.generators.diffusion.learner import (
    Learner,
    guided,
    noise_of,
    noise_scheduler,
    sample,
    sampling_timesteps,
    target_of,
    to_pixels,
)

torch.set_num_threads(1)

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PROCESSES = {
    "ours": noise_scheduler,
    "noise": lambda: DDPMScheduler(**STABLE_DIFFUSION),
    "zero_snr": lambda: DDPMScheduler(**STABLE_DIFFUSION, prediction_type="v_prediction", rescale_betas_zero_snr=True),
}


def test_strength_says_where_sampling_begins():
    assert sampling_timesteps(1.0, 3) == [999, 666, 333]
    assert sampling_timesteps(0.3, 3) == [299, 199, 100]
    assert sampling_timesteps(0.004, 9) == [3, 2, 1]  # none twice, and none that a fit for that strength has not seen
    assert sampling_timesteps(0.001, 2) == [1]


@pytest.mark.parametrize("strength", [1.0, 0.3])
@pytest.mark.parametrize("process", PROCESSES)
def test_sampling_with_a_network_that_knows_the_picture_comes_to_it(process, strength):
    """Whatever the network is asked for: the noise (DDPM, arXiv 2006.11239) or v (arXiv 2202.00512)."""
    forward = PROCESSES[process]()
    clean, start, noise = (torch.from_numpy(noise_of(seed, (2, 3, 8, 8))) for seed in range(3))
    start = start if strength == 1 else clean

    def predict(pictures, timestep):
        signal = forward.alphas_cumprod[timestep]
        left = (pictures - signal.sqrt() * clean) / (1 - signal).sqrt()
        return target_of(forward, clean, left, timestep.expand(2))

    found = sample(forward, predict, start, noise, sampling_timesteps(strength, 10))
    assert (found - clean).abs().max() < 1e-3


def test_a_schedulers_own_way_of_sampling_is_not_taken_over():
    """A checkpoint's scheduler may draw noise of its own, from torch's generator, or know only spacings of its own."""
    settings = {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True, "timestep_spacing": "trailing"}
    one, other = DDPMScheduler(**STABLE_DIFFUSION), DDPMScheduler(**STABLE_DIFFUSION)
    other.register_to_config(**settings)
    noise = torch.from_numpy(noise_of(0, (1, 3, 8, 8)))
    found = [sample(it, lambda x, _: x.sin(), noise * 0, noise, sampling_timesteps(1.0, 4)) for it in (one, other)]
    assert torch.equal(*found)


def test_what_neither_predicts_noise_nor_v_is_refused():
    forward = DDPMScheduler(prediction_type="sample")
    with pytest.raises(ValueError, match="prediction_type 'sample'"):
        target_of(forward, torch.zeros(1), torch.zeros(1), torch.zeros(1, dtype=torch.long))


def test_guidance_by_hand_arxiv_2207_12598_eq_6():
    assert guided(torch.tensor(3.0), torch.tensor(1.0), 2.0) == 5.0
    assert guided(torch.tensor(3.0), torch.tensor(1.0), 1.0) == 3.0


def test_noise_is_its_seeds():
    assert (noise_of(1, (3, 4, 4)) == noise_of(1, (3, 4, 4))).all()
    assert (noise_of(1, (3, 4, 4)) != noise_of(2, (3, 4, 4))).all()
    assert abs(noise_of(0, (100_000,)).std() - 1) < 0.01


def test_pixels_by_hand():
    pictures = torch.tensor([-2.0, -1.0, 0.0, 1.0, 9.0]).expand(2, 3, 1, 5)
    found = to_pixels(pictures)
    assert [one.shape for one in found] == [(1, 5, 3)] * 2
    assert found[1][0, :, 2].tolist() == [0, 0, 128, 255, 255]  # 127.5 is rounded to even


# --- a step of a fit


def learner(worker=None, seed=0, num_steps=18):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    group = {"params": list(network.parameters()), "lr": 0.1}
    return Learner(network, [group], num_steps, worker or Worker(device="cpu"))


def losses_on(one, rows):
    """A mean of squares over some of 8 rows."""
    data = torch.from_numpy(noise_of(7, (8, 4)))[list(rows)]
    return lambda: one.network(data).square().mean()


def weights(one):
    return torch.cat([weight.flatten() for weight in one.network.parameters()]).detach()


def test_the_rates_rise_for_a_twentieth_and_fall_to_nothing():
    one, rates = learner(num_steps=100), []
    one.add(nn.Linear(4, 1), 0.02)
    for _ in range(100):
        rates.append([group["lr"] for group in one.optimizer.param_groups])
        one.update([losses_on(one, range(8))])
    first, second = np.transpose(rates)
    assert second == pytest.approx(first / 5)
    assert first[:6] == pytest.approx([0, 0.02, 0.04, 0.06, 0.08, 0.1])
    assert first[52] == pytest.approx(0.05 * (1 + np.cos(np.pi * 47 / 95)))
    assert first[5:].tolist() == sorted(first[5:], reverse=True)
    assert first[-1] < 0.0001


def test_parts_of_a_batch_make_the_step_of_the_whole():
    whole, parted = learner(), learner()
    for _ in range(5):
        first = whole.update([losses_on(whole, range(8))])
        second = parted.update([losses_on(parted, part) for part in ((0, 1), (2, 3), (4, 5), (6, 7))])
        assert second == pytest.approx(first, rel=1e-5)
    torch.testing.assert_close(weights(parted), weights(whole), rtol=1e-5, atol=1e-6)


def test_two_workers_make_the_steps_of_one(together):
    """Mean gradients, and the loss of both: equal but for the order of sums."""
    alone = learner()
    gang = [learner(Worker(device="cpu", rank=rank, num_workers=2)) for rank in range(2)]

    def steps(one):
        part = range(one.worker.rank, 8, 2)
        return [one.update([losses_on(one, part)]) for _ in range(5)]

    expected = [alone.update([losses_on(alone, range(8))]) for _ in range(5)]
    first, second = together([lambda one=one: steps(one) for one in gang])
    assert first == second == pytest.approx(expected, rel=1e-5)
    assert torch.equal(weights(gang[0]), weights(gang[1]))
    torch.testing.assert_close(weights(gang[0]), weights(alone), rtol=1e-5, atol=1e-6)


def test_what_learns_beside_is_neither_averaged_nor_forgotten():
    one, other = learner(), learner()
    for it in (one, other):
        torch.manual_seed(5)
        it.add(nn.Linear(8, 1), 0.1)
        assert it.average.state_dict().keys() == it.network.state_dict().keys()

    def loss(it):
        return lambda: (it.beside(it.network[0](torch.ones(1, 4))) - 1).square().mean()

    before = one.beside.weight.detach().clone()
    for _ in range(4):
        one.update([loss(one)])
    assert not torch.equal(one.beside.weight, before)
    other.restore(deepcopy(one.state()))  # as through a file
    for it in (one, other):
        it.update([loss(it)])
    assert torch.equal(weights(one), weights(other))
    assert torch.equal(one.beside.weight, other.beside.weight)


def test_the_average_begins_with_the_first_step_and_follows_more_slowly_each_time():
    one = learner()
    one.update([losses_on(one, range(8))])
    assert equal(one.average, one.network)
    start = deepcopy(one.average)
    one.update([losses_on(one, range(8))])
    for before, average, weight in zip(*map(nn.Module.parameters, (start, one.average, one.network)), strict=True):
        torch.testing.assert_close(average, 2 / 11 * before + 9 / 11 * weight)  # (1 + 1) / (10 + 1) is kept
        assert average.grad_fn is None  # nor of what it was made: that would grow with every step


def test_the_average_goes_on_where_its_state_and_its_module_were_left():
    """Whoever samples with the module may lay out its weights anew."""
    one, other = learner(), learner(seed=1)
    one.update([losses_on(one, range(8))])
    other.restore(deepcopy(one.state()))
    other.average.double().float()
    for it in (one, other):
        it.update([losses_on(it, range(8))])
    assert not equal(one.average, one.network)
    assert equal(one.average, other.average)


def equal(one, other):
    return all(map(torch.equal, one.parameters(), other.parameters()))


def test_gradients_in_float16_are_scaled_and_come_to_the_same(monkeypatch):
    """Its smallest numbers are 6e-8: unscaled, small gradients would be 0. A step that overflows is left out."""
    plain = learner()
    monkeypatch.setattr(module, "native_dtypes", lambda _: [torch.float16, torch.float32])
    scaled = learner()
    assert plain.state().keys() | {"scaler"} == scaled.state().keys()
    for _ in range(3):
        for one in (plain, scaled):
            one.update([losses_on(one, range(8))])
    torch.testing.assert_close(weights(scaled), weights(plain), rtol=1e-4, atol=1e-5)
    before, scale = weights(scaled), scaled.scaler.get_scale()
    scaled.update([lambda: losses_on(scaled, range(8))() * torch.inf])
    assert torch.equal(weights(scaled), before)
    assert scaled.scaler.get_scale() == scale / 2
