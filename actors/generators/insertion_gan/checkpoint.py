"""The networks of DetectorGAN as a checkpoint."""

from collections.abc import Mapping

from torch import Tensor, nn

from actors.checkpoint import Header, write_checkpoint
from actors.fitting import read_fitted
from actors.generators.insertion_gan.config import InsertionGANSettings
from actors.generators.insertion_gan.networks import Judge, Painter

FAMILY = "insertion_gan"


def build_painters(settings: InsertionGANSettings, num_classes: int) -> nn.ModuleDict:
    """G_X (``insert``) and G_Y (``remove``), with weights from torch's global generator."""
    return nn.ModuleDict({name: Painter(settings, num_classes) for name in ("insert", "remove")})


def build_judges(settings: InsertionGANSettings, num_classes: int) -> nn.ModuleDict:
    """The discriminators of windows with an inserted object, of that object alone, and of windows without an object."""
    return nn.ModuleDict({name: Judge(settings, num_classes) for name in ("inserted", "local", "removed")})


def save(
    uri: str, settings: InsertionGANSettings, classes: tuple[str, ...], painters: nn.Module, judges: nn.Module
) -> None:
    """Write the networks to ``uri``, atomically."""
    header = Header(family=FAMILY, model=_architecture(settings), classes=classes, image_size_px=settings.size_px)
    tensors = {f"painters.{name}": value for name, value in painters.state_dict().items()}
    tensors |= {f"judges.{name}": value for name, value in judges.state_dict().items()}
    write_checkpoint(uri, header, tensors)


def load(
    uri: str | None, settings: InsertionGANSettings, classes: tuple[str, ...]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of painters and judges at ``uri``. Raises ValueError or FileNotFoundError if they do not fit."""
    _, tensors = read_fitted(uri, FAMILY, _architecture(settings), classes)
    return _part(tensors, "painters."), _part(tensors, "judges.")


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _architecture(settings: InsertionGANSettings) -> str:
    widths = ("-".join(map(str, one)) for one in (settings.channels, settings.judge_channels))
    return f"unet-{next(widths)}-patches-{next(widths)}-noise-{settings.noise_channels}"
