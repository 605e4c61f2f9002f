"""The settings of ``training.overrides`` for torchvision's detectors."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Literal

from pydantic import Field, ValidationError

from actors.config import Config, Share
from actors.detectors.base import Setting


class Settings(Config):
    """What ``training.overrides`` may set."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """torch.optim.AdamW or SGD."""
    lr: float | None = Field(None, gt=0.0)
    """Highest learning rate; default: 0.0005 for adamw; for sgd 0.02 at a batch of 16, in proportion to the batch."""
    momentum: Share = 0.9
    """Momentum of sgd."""
    weight_decay: float = Field(1e-4, ge=0.0)
    """Weight decay."""
    schedule: Literal["cosine", "step"] = "cosine"
    """After the warm-up: cosine falls to 0; step divides the learning rate by 10 after 2/3 and 8/9 of the training."""
    warmup: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the training in which the learning rate rises linearly."""
    clip: float = Field(10.0, ge=0.0)
    """Largest norm of the gradient; 0: no limit."""
    ema: float = Field(0.05, ge=0.0, lt=1.0)
    """Time constant of the moving average of the weights, as a share of the training; 0: the last weights."""
    amp: bool | Literal["bf16", "fp16", "fp32"] = True
    """Number format of the forward pass: true is the fastest native one of a GPU, and float32 on the CPU; false is
    float32."""
    flip: Share = 0.5
    """Probability of a mirror image, left for right."""
    flip_vertical: Share = 0.0
    """Probability of an image upside down."""
    scale: float = Field(0.25, ge=0.0, lt=1.0)
    """Images are scaled by a factor in [1 - scale, 1 + scale] and placed at random; 0: they stay as detected on."""
    color: Share = 0.3
    """Brightness, contrast and saturation change by up to this share, the hue by a tenth of it."""
    workers: int | None = Field(None, ge=0)
    """Processes that load images for a training worker; default: 0 on the CPU, up to 8 with a GPU."""

    def learning_rate(self, batch_size: int) -> float:
        """The highest learning rate for batches of ``batch_size`` images."""
        return self.lr or (5e-4 if self.optimizer == "adamw" else 0.02 * batch_size / 16)

    def format_on(self, device_type: str) -> bool | str:
        """``amp`` on a device; not bfloat16 on the CPU, where training was seen to become NaN at times."""
        return False if self.amp is True and device_type == "cpu" else self.amp


def read_settings(overrides: Mapping[str, Setting]) -> Settings:
    """``training.overrides`` and the defaults. Raises ValueError on an unknown setting or a bad value."""
    known = Settings.model_fields
    for name in overrides:
        if name not in known:
            near = ", ".join(get_close_matches(name, known, n=4, cutoff=0.5)) or ", ".join(known)
            raise ValueError(
                f"training.overrides.{name}: torchvision's detectors have no such setting; near it: {near}"
            )
    try:
        return Settings.model_validate(overrides)
    except ValidationError as error:
        one = error.errors()[0]
        raise ValueError(f"training.overrides.{one['loc'][0]}: {one['msg']}; seen: {one['input']!r}") from error
