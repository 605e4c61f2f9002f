"""SSD-Det's refiner after its fit, with a detector of its own whose features it reads."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from actors.checkpoint import Checkpoint, Header, read_checkpoint, write_checkpoint
from actors.detector_loss import DetectorLoss
from actors.fitting import LossSource
from actors.images import Pixels
from actors.letterbox import Letterbox, picture_size, to_tensor
from actors.precision import reproducible
from actors.records import Annotation, Refinement
from actors.refiners.ssddet.config import SSDDetSettings
from actors.refiners.ssddet.mirrors import MIRRORS, mirrored_boxes, mirrored_canvas
from actors.refiners.ssddet.network import Levels, Objects, SSDDetNetwork

KIND = "ssddet"
DETECTOR, REFINER = "detector.", "refiner."  # prefixes of the tensors of a checkpoint


def channels_of(detector: DetectorLoss, size_px: int) -> list[int]:
    """The channels of the maps of a detector's pyramid. Raises ValueError where it has none."""
    with torch.inference_mode():
        return [one.shape[1] for one in detector.maps({}, torch.zeros(1, 3, size_px, size_px))]


def save(
    uri: str, about: Header, detector: DetectorLoss, trained: Mapping[str, Tensor], network: SSDDetNetwork
) -> None:
    """Write the checkpoint of a fit to ``uri``, atomically.

    ``about`` is the header of the detector's checkpoint, ``trained`` are values of its parameters that replace its own.
    """
    tensors = {DETECTOR + name: one for name, one in (detector.network.state_dict() | dict(trained)).items()}
    tensors |= {REFINER + name: one for name, one in network.state_dict().items()}
    header = about.model_copy(update={"family": KIND, "model": f"{about.family} {about.model}"})
    write_checkpoint(uri, header, tensors)


def write_detector(uri: str, checkpoint: str) -> None:
    """Write the detector in the refiner's checkpoint at ``uri`` to ``checkpoint``, as one of the detector's own."""
    header, tensors = read_checkpoint(uri)
    family, _, model = header.model.partition(" ")
    own = header.model_copy(update={"family": family, "model": model})
    write_checkpoint(checkpoint, own, part_of(tensors, DETECTOR))


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


class SSDDetRefiner:
    """See ``actors.refiners.base.Refiner``."""

    def __init__(
        self, settings: SSDDetSettings, detector: LossSource, checkpoint: str, device: str | None = None
    ) -> None:
        """Raises ValueError or FileNotFoundError if ``checkpoint`` is missing or does not fit settings and detector."""
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        header, tensors = read_checkpoint(checkpoint)
        if header.family != KIND:
            raise ValueError(f"{checkpoint}: holds {header.family} {header.model}, no fitted refiner {KIND}")
        with tempfile.TemporaryDirectory(prefix="detloop-refiner-") as folder:
            own = Checkpoint(str(Path(folder, "detector.safetensors")))
            write_detector(checkpoint, own)
            self.detector = detector.open_loss(own, device=self.device)
        self.size_px = settings.image_size_px or header.image_size_px
        self.network = SSDDetNetwork(settings, channels_of(self.detector, self.size_px), len(header.classes))
        try:
            self.network.load_state_dict(part_of(tensors, REFINER))
        except RuntimeError as error:
            raise ValueError(f"{checkpoint}: does not fit the keys of the refiner: {error}") from error
        self.network.eval().requires_grad_(False).to(self.device)

    def refine(self, pictures: Sequence[Pixels], annotations: Sequence[Annotation]) -> list[Refinement]:
        """The refined boxes of each picture, as means over its mirrorings."""
        with reproducible():
            return [self._refined(*one) for one in zip(pictures, annotations, strict=True)]

    def _refined(self, pixels: Pixels, annotation: Annotation) -> Refinement:
        """One object at a time: in products of matrices, the last bits of a row depend on how many rows there are."""
        size = picture_size(pixels)
        place = Letterbox.fit(size, self.size_px, self.size_px)
        boxes, confidence = annotation.boxes.copy(), np.zeros(len(annotation), np.float32)
        if annotation.ignore.all():
            return Refinement(boxes=boxes, confidence=confidence)
        levels = self._levels(pixels, place)
        for index in np.flatnonzero(~annotation.ignore):
            one = annotation.take(np.array([index]))
            views = [replace(one, boxes=mirrored_boxes(one.boxes, size, mirror)) for mirror in MIRRORS]
            outcome = self.network(levels, objects_of(views, [place] * len(views), self.device))[-1]
            found = place.to_source(outcome.boxes.cpu().numpy())
            back = [mirrored_boxes(box[None], size, mirror) for box, mirror in zip(found, MIRRORS, strict=True)]
            boxes[index] = np.concatenate(back).mean(axis=0)
            confidence[index] = float(outcome.confidence.mean())
        return Refinement(boxes=boxes, confidence=confidence)

    def _levels(self, pixels: Pixels, place: Letterbox) -> Levels:
        """The pyramids of a picture's mirrorings, as one batch."""
        canvases = np.stack([mirrored_canvas(pixels, place, mirror) for mirror in MIRRORS])
        return self.network.levels(self.detector.maps({}, to_tensor(canvases)), place.canvas)


def objects_of(annotations: Sequence[Annotation], places: Sequence[Letterbox], device: str) -> Objects:
    """The objects of pictures at ``places`` on their canvases; every annotation has one at least."""
    boxes = np.concatenate([place.to_canvas(one.boxes) for one, place in zip(annotations, places, strict=True)])
    bounds = np.concatenate([np.tile(place.bounds, (len(a), 1)) for a, place in zip(annotations, places, strict=True)])
    return Objects(
        boxes=torch.from_numpy(boxes).to(device),
        labels=torch.from_numpy(np.concatenate([one.labels for one in annotations])).to(device),
        bounds=torch.from_numpy(bounds).to(device),
        counts=tuple(len(one) for one in annotations),
    )
