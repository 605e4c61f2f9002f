"""Detector families: the protocol of a detector, and the base of every family's config."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import PurePath
from typing import TYPE_CHECKING, ClassVar, Protocol

from pydantic import Field

from actors.checkpoint import (
    Checkpoint,
    Header,
    LoadedWeights,
    read_checkpoint,
    read_tensors,
    transfer,
    write_checkpoint,
)
from actors.config import Component
from actors.detector_loss import DetectorLoss
from actors.images import Pixels, factors, reduced
from actors.records import Detections

if TYPE_CHECKING:
    from torch import Tensor, nn

Setting = bool | int | float | str

LEAST_PICTURE_PX = 640  # images up to this size are never reduced by default: their cost is small


class Detector(Protocol):
    """A trained detector on one device."""

    classes: tuple[str, ...]

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """The detections in each image ``[H, W, 3]`` uint8 RGB, boxes in that image's own px, by falling score.

        An image's detections do not depend, to the last bit on one kind of hardware, on the images it is batched
        with.
        """
        ...

    def features(self, images: Sequence[Pixels]) -> "Tensor":
        """One embedding ``[n, d]`` float32 per image, from the deepest feature map, averaged over positions."""
        ...


SCRATCH = "none"
"""In the place of weights: start from random ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """The lines of YAML that ``detloop init`` writes for a family; comments follow ``##``."""

    section: str  # of the section detector, but for image_size_px
    overrides: str  # value of training.overrides
    weights: str | None  # that the section names to start from; None: random ones
    note: str  # for the user, on weights that could not be had; may be empty


class DetectorBase(Component):
    """The base of every detector's config: builds the network, reads and writes its weights, and opens the detector.

    A family subclasses it in ``actors`` and names the module of ``loop`` that trains it (see ``loop.training.base``).
    Networks are plain ``torch.nn.Module``; only the family calls them.
    """

    trainer: ClassVar[str]
    """Dotted name of the module that trains the family; it is imported by the loop."""
    rate_setting: ClassVar[str] = "lr"
    """Name of the learning rate in ``training.overrides``."""
    licence: ClassVar[str] = ""
    """A clause for users on the licence of the family's libraries."""
    export_formats: ClassVar[tuple[str, ...]] = ()
    """Formats of ``export``, the default first."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions besides torch whose versions affect a training: one with other versions is not reused."""

    model: str
    """Architecture, by the name that the family knows it by."""
    weights: str | None = None
    """Weights for training.start: weights."""
    image_size_px: int = Field(320, ge=32, multiple_of=32)
    """Longer side that images are resized to; a multiple of 32."""
    max_picture_px: int | None = Field(None, ge=32)
    """Longer side of the pictures that are mined, drawn and trained on; default: 1.5 times image_size_px, at least 640.
    Larger real images are reduced to it once, when a run starts. The detector sees no detail beyond image_size_px;
    drawing somewhat finer keeps edges smooth."""
    min_score: float = Field(0.001, ge=0.0, le=1.0)
    """Detections below this are not reported."""
    max_detections: int = Field(300, ge=1)
    """Detections reported for an image, strongest first."""

    @classmethod
    def starter(cls, weights: str | None = None) -> Starter:  # noqa: ARG003 - for families
        """The part of ``detloop init`` that depends on the family.

        ``weights`` are a release, a file or ``SCRATCH``; None: the family's default release if it can be had, else
        ``SCRATCH``. Raises ValueError where the family cannot write such a config, or there are no such weights.
        """
        raise ValueError(f"no config can be written for the detectors of {cls.__name__}: it has no starter")

    @property
    def picture_px(self) -> int:
        """``max_picture_px``, or its default."""
        return self.max_picture_px or max(3 * self.image_size_px // 2, LEAST_PICTURE_PX)

    @property
    def architecture_name(self) -> str:
        """The name of the architecture within the family, as its checkpoints have it."""
        return PurePath(self.model).name

    @property
    def weights_source(self) -> str | None:
        """Where the weights for training.start: weights come from; None without any."""
        return self.weights

    @property
    def has_weights(self) -> bool:
        """Whether there are weights for training.start: weights."""
        return self.weights_source is not None

    @property
    def once_differentiable(self) -> tuple[str, ...]:
        """How the names of parameters begin by which ``open_loss`` has no second derivative."""
        return ()

    def check_architecture(self) -> None:
        """Raise ValueError or FileNotFoundError if ``model`` names none, as far as the family can tell at once."""

    # For every family to answer

    @abstractmethod
    def architecture(self, num_classes: int) -> "nn.Module":
        """A network with fresh weights, drawn from torch's global generator, on the CPU, in training mode.

        Raises ValueError or FileNotFoundError where there is no such architecture or it does not take the image size.
        """

    def image_s(self) -> float | None:
        """Seconds in which one thread of a CPU trains on one image, within a factor of 2; None where unknown."""
        return None

    @abstractmethod
    def head(self, network: "nn.Module") -> str:
        """The prefix of the names of the parameters in the head of ``network``, which depend on the classes."""

    @abstractmethod
    def load(self, checkpoint: Checkpoint, device: str | None = None) -> Detector:
        """The detector with the weights of one of our checkpoints (a path or an fsspec URI).

        ``device`` is a torch device; by default the GPU that this process was given, else the CPU. Raises like
        ``load_checkpoint``.
        """

    @abstractmethod
    def open_loss(
        self,
        checkpoint: Checkpoint,
        *,
        prefixes: Sequence[str] | None = None,
        overrides: Mapping[str, Setting] | None = None,
        device: str | None = None,
    ) -> DetectorLoss:
        """The detector's own training loss as a function of its parameters.

        Args:
            checkpoint: One of our checkpoints.
            prefixes: The names of the parameters to differentiate by begin with one of these; default: the head's.
            overrides: ``training.overrides``; those that weigh the terms of the loss count.
            device: A torch device; by default the GPU that this process was given, else the CPU.

        Raises like ``load_checkpoint``; ValueError where ``prefixes`` match no parameter.
        """

    # For a family to add

    def export(self, checkpoint: Checkpoint, fmt: str) -> bytes:
        """The content of a file with the detector of one of our checkpoints, in the format ``fmt`` of other programs.

        The file gives this detector's boxes. It holds its class names, its image size, and ``picture_px`` as
        ``max_picture_px``, to which larger pictures are reduced first (see ``Reducing``). Raises ValueError if the
        family cannot be exported to ``fmt``; else like ``load_checkpoint``.
        """
        raise ValueError(f"{self.kind} detectors cannot be exported to {fmt!r} ({checkpoint})")

    # The same for every family

    def check_export(self, fmt: str) -> None:
        """Raise ValueError if ``fmt`` is none of ``export_formats``, or needs a package that is not installed."""
        if fmt not in self.export_formats:
            known = ", ".join(self.export_formats)
            raise ValueError(f"{self.kind} detectors cannot be exported to {fmt!r}; choose one of {known}")
        if fmt == "onnx" and find_spec("onnx") is None:
            raise ValueError("ONNX needs the package onnx: install detloop with the extra `export`, or onnx itself")

    def read_weights(self) -> tuple[tuple[str, ...], "dict[str, Tensor]"]:
        """Class names and tensors of ``weights``: one of our checkpoints, or plain tensors without class names.

        Families add their own releases.
        """
        if not self.weights:
            raise ValueError("detector.weights: training.start is weights, but no weights are named")
        header, tensors = read_tensors(self.weights)
        return header.classes if header else (), tensors

    def load_weights(self, network: "nn.Module", classes: Sequence[str]) -> LoadedWeights:
        """Give ``network``, which detects ``classes``, the weights of ``weights`` wherever they fit, in place.

        Everything before the head must fit, else ValueError. In the head, tensors of another shape stay fresh, and so
        do the rows of classes unless the weights are for the same classes in the same order. Raises FileNotFoundError
        or ValueError where there are no such weights.
        """
        names, tensors = self.read_weights()
        by_class = frozenset() if names == tuple(classes) else self._class_tensors(network, len(classes))
        return transfer(network, tensors, str(self.weights), self.head(network), by_class)

    def _class_tensors(self, network: "nn.Module", num_classes: int) -> frozenset[str]:
        """The tensors with a row for each class: those whose shape changes with one class more."""
        import torch

        with torch.random.fork_rng(devices=[]):
            larger = self.architecture(num_classes + 1).state_dict()
        return frozenset(name for name, tensor in network.state_dict().items() if tensor.shape != larger[name].shape)

    def save_checkpoint(self, network: "nn.Module", classes: Sequence[str], uri: Checkpoint) -> None:
        """Put the weights (not fused, not wrapped) of ``network`` at ``uri`` as one of our checkpoints, atomically."""
        header = Header(
            family=self.kind,
            model=self.architecture_name,
            classes=tuple(classes),
            image_size_px=self.image_size_px,
        )
        write_checkpoint(uri, header, network.state_dict())

    def load_checkpoint(self, uri: Checkpoint) -> tuple["nn.Module", tuple[str, ...]]:
        """The network of one of our checkpoints, as ``architecture`` gives it, and the classes that it detects.

        Raises FileNotFoundError, or ValueError where the checkpoint is of another architecture.
        """
        header, tensors = read_checkpoint(uri)
        wanted = (self.kind, self.architecture_name)
        if (header.family, header.model) != wanted:
            raise ValueError(f"{uri}: holds {header.family} {header.model}, but detector says {' '.join(wanted)}")
        network = self.architecture(len(header.classes))
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(f"{uri}: does not fit {self.model} with {len(header.classes)} classes: {error}") from error
        return network, header.classes


class Reducing:
    """A detector that first reduces pictures to the size of those that it was trained on; boxes are in their own px."""

    def __init__(self, detector: Detector, max_side_px: int) -> None:
        self.detector, self.classes, self.max_side_px = detector, detector.classes, max_side_px

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """See ``Detector``."""
        smaller = [reduced(pixels, self.max_side_px) for pixels in images]
        found = self.detector.detect(smaller)
        return [
            replace(seen, boxes=seen.boxes * factors(small, pixels))
            for seen, small, pixels in zip(found, smaller, images, strict=True)
        ]

    def features(self, images: Sequence[Pixels]) -> "Tensor":
        """See ``Detector``."""
        return self.detector.features([reduced(pixels, self.max_side_px) for pixels in images])
