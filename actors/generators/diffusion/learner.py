"""Base of our own diffusion models (DDPM, arXiv 2006.11239): forward process, sampling, and a step of the fit."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from actors.fitting import Worker
from actors.images import Pixels
from actors.precision import native_dtypes

NUM_TRAIN_TIMESTEPS = 1000
_EMA_DECAY = 0.995
_PROCESS = (  # keys of a scheduler's config that define the forward process and the prediction
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"),
    *("rescale_betas_zero_snr", "prediction_type"),
)

Predict = Callable[[Tensor, Tensor], Tensor]  # noisy pictures [b, ...] and a timestep to the prediction
Scheduler: TypeAlias = Any  # diffusers is not typed


def noise_scheduler() -> Scheduler:
    """The forward process: cosine schedule (arXiv 2102.09672), v-prediction (arXiv 2202.00512)."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"
    )


def last_timestep(strength: float) -> int:
    """The noisiest timestep in sampling from ``strength``; noisier ones need no fit."""
    return max(round(strength * NUM_TRAIN_TIMESTEPS) - 1, 1)


def sampling_timesteps(strength: float, num_steps: int) -> list[int]:
    """Falling timesteps, evenly spaced from ``strength`` of the whole range; fewer if there are not enough."""
    last = last_timestep(strength)
    falling = np.linspace(last, 0, min(num_steps, last) + 1)[:-1]
    return [round(float(step)) for step in falling]


def sample(forward: Scheduler, predict: Predict, start: Tensor, noise: Tensor, timesteps: Sequence[int]) -> Tensor:
    """Pictures ``[b, ...]`` by DPM-Solver++ (arXiv 2211.01095), from ``start`` with ``noise`` of the first timestep.

    This is SDEdit (arXiv 2108.01073). If the first timestep leaves hardly any signal, ``start`` does not matter.
    """
    from diffusers import DPMSolverMultistepScheduler

    process = {name: forward.config[name] for name in _PROCESS}
    scheduler: Any = DPMSolverMultistepScheduler(**process, final_sigmas_type="zero")
    scheduler.set_timesteps(timesteps=list(timesteps))
    pictures: Tensor = forward.add_noise(start, noise, scheduler.timesteps[:1])
    for timestep in scheduler.timesteps:
        pictures = scheduler.step(predict(pictures, timestep), timestep, pictures).prev_sample
    return pictures


def guided(with_condition: Tensor, without: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598, Eq. 6, where w is ``guidance`` - 1)."""
    return without + guidance * (with_condition - without)


def noise_of(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal numbers that depend on ``seed`` alone."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def to_pixels(pictures: Tensor) -> list[Pixels]:
    """Pictures ``[b, 3, H, W]``, clipped to [-1, 1], as ``[H, W, 3]`` uint8 each."""
    pixels = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return list(pixels.permute(0, 2, 3, 1).cpu().numpy())


def target_of(forward: Scheduler, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """The target of the prediction. Raises ValueError for a forward process that predicts neither noise nor v."""
    match forward.config.prediction_type:
        case "epsilon":
            return noise
        case "v_prediction":
            velocity: Tensor = forward.get_velocity(clean, noise, timesteps)
            return velocity
        case other:
            raise ValueError(f"prediction_type {other!r}: only epsilon and v_prediction can be fitted")


class Learner:
    """A network in training over one or more workers: AdamW, cosine schedule, moving average of the weights."""

    def __init__(self, network: nn.Module, groups: Sequence[dict[str, Any]], num_steps: int, worker: Worker) -> None:
        """``groups`` are AdamW's, each with its peak ``lr``, which rises from 0 for a twentieth and falls to 0."""
        from diffusers.training_utils import EMAModel

        self.network, self.num_steps, self.worker = network, num_steps, worker
        self.beside: nn.Module | None = None
        self.average = deepcopy(network).requires_grad_(False)
        self.moving: Any = EMAModel((), decay=_EMA_DECAY, foreach=True)
        self.moving.shadow_params = list(self.average.parameters())  # the module's own, not copies
        self.optimizer = torch.optim.AdamW(list(groups), weight_decay=1e-2)
        self.schedule = self._schedule()
        device = torch.device(worker.device)  # only float16 has too small a range for gradients
        self.scaler = torch.amp.GradScaler(device.type, enabled=native_dtypes(device)[0] == torch.float16)

    def add(self, beside: nn.Module, peak: float) -> None:
        """Let a module learn beside the network, which is neither averaged nor part of what is sampled with."""
        self.beside = beside
        self.optimizer.add_param_group({"params": list(beside.parameters()), "lr": peak})
        self.schedule = self._schedule()  # of all groups

    def warm_start(self, weights: Mapping[str, Tensor]) -> None:
        """Start from these weights of the network."""
        for network in (self.network, self.average):
            network.load_state_dict(dict(weights))

    def update(self, losses: Sequence[Callable[[], Tensor]]) -> float:
        """Take a step on the mean of ``losses``; returns their mean over all workers."""
        self.optimizer.zero_grad()
        total = torch.zeros(())
        for part in losses:  # one after the other: gradients are accumulated
            loss = part() / len(losses)
            self.scaler.scale(loss).backward()
            total = total + loss.detach().cpu()
        learning = [one for group in self.optimizer.param_groups for one in group["params"]]
        self.worker.share([one.grad for one in learning if one.grad is not None])
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.moving.optimization_step = self.schedule.last_epoch  # the number of steps done
        self.moving.step(self.network.parameters())
        self.schedule.step()
        return float(self.worker.mean(total))

    def state(self) -> dict[str, Any]:
        """All that the steps to come depend on."""
        parts: dict[str, Any] = {name: getattr(self, name) for name in ("network", "average", "optimizer", "schedule")}
        parts |= {"beside": self.beside} if self.beside else {}
        parts |= {"scaler": self.scaler} if self.scaler.is_enabled() else {}
        return {name: part.state_dict() for name, part in parts.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from an earlier ``state``."""
        for name, tensors in state.items():
            getattr(self, name).load_state_dict(tensors)

    def _schedule(self) -> LRScheduler:
        from diffusers.optimization import get_cosine_schedule_with_warmup

        return get_cosine_schedule_with_warmup(self.optimizer, self.num_steps // 20, self.num_steps)
