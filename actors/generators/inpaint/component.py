"""The inpainting generator as a component: construction and fit."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from typing_extensions import override

from actors.config import Need
from actors.fitting import Fit, FitData, FitSize, Worker
from actors.generators.base import Generator, GeneratorBase
from actors.generators.inpaint.config import InpaintSettings
from actors.generators.inpaint.painters.base import CropRule
from actors.records import LabeledImage, Strategy


class InpaintConfig(InpaintSettings, GeneratorBase):
    """Boxes, places and painter of the inpainting generator."""

    runs_network: ClassVar = True

    kind: Literal["inpaint"] = "inpaint"

    @override
    def needs(self) -> tuple[Need, ...]:
        return self.painter.needs()

    @override
    def requested(self) -> Strategy:
        return self.difficulty if self.painter.takes_difficulty else "origin"

    @property
    @override
    def clean_share(self) -> float:
        return self.clean

    @property
    @override
    def hard_modes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.modes)) if self.painter.varies else ()

    @override
    def build(
        self,
        real: Sequence[LabeledImage],
        classes: tuple[str, ...],
        fitted: str | None = None,
        clean: Sequence[LabeledImage] = (),
    ) -> Generator:
        from actors.generators.inpaint.generator import Inpaint

        return Inpaint(self, real, self.painter.build(classes, fitted), clean)

    @override
    def files_digest(self, clean: Sequence[LabeledImage]) -> str | None:
        return self.painter.files_digest()

    @override
    def fit_size(self) -> FitSize | None:
        return self.painter.fit_size()

    @override
    def open_fit(self, data: FitData, worker: Worker) -> Fit:
        crops = CropRule(context=self.context, margin=self.margin, flip=self.flip, rotate=self.rotate)
        return self.painter.open_fit(data, worker, crops)
