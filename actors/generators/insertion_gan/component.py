"""DetectorGAN as a component: construction and fit."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from typing_extensions import override

from actors.fitting import Fit, FitData, FitSize, Worker
from actors.generators.base import Generator, GeneratorBase
from actors.generators.insertion_gan.config import InsertionGANSettings
from actors.records import LabeledImage


class InsertionGANConfig(InsertionGANSettings, GeneratorBase):
    """Windows, networks, places and fit of DetectorGAN, which inserts objects into images."""

    runs_network: ClassVar = True
    uses_clean: ClassVar = True

    kind: Literal["insertion_gan"] = "insertion_gan"

    @property
    @override
    def uses_detector(self) -> bool:
        return self.has_detector_terms

    @override
    def build(
        self,
        real: Sequence[LabeledImage],
        classes: tuple[str, ...],
        fitted: str | None = None,
        clean: Sequence[LabeledImage] = (),
    ) -> Generator:
        from actors.generators.insertion_gan.generator import InsertionGAN

        return InsertionGAN(self, real, clean, classes, fitted)

    @override
    def files_digest(self, clean: Sequence[LabeledImage]) -> str | None:
        from actors.generators.insertion_gan.places import masks_digest

        return masks_digest(self.place_masks, clean) if self.place_masks else None

    @override
    def fit_size(self) -> FitSize:
        return FitSize(steps=self.fit.steps, batch_size=self.fit.batch_size)

    @override
    def open_fit(self, data: FitData, worker: Worker) -> Fit:
        from actors.generators.insertion_gan.fit import InsertionGANFit

        return InsertionGANFit(self, data, worker)
