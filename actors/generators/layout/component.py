"""The layout-to-image generator as a component: construction and fit."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from typing_extensions import override

from actors.config import Need
from actors.fitting import Fit, FitData, FitSize, Worker
from actors.generators.base import Generator, GeneratorBase
from actors.generators.layout.config import LayoutSettings
from actors.records import LabeledImage, Strategy


class LayoutConfig(LayoutSettings, GeneratorBase):
    """Network, fit, prompts and sampling of the layout-to-image generator."""

    runs_network: ClassVar = True
    has_canvas: ClassVar = False

    kind: Literal["layout"] = "layout"

    @override
    def needs(self) -> tuple[Need, ...]:
        return self.network.needs()

    @override
    def requested(self) -> Strategy:
        return self.strategy

    @override
    def build(
        self,
        real: Sequence[LabeledImage],
        classes: tuple[str, ...],
        fitted: str | None = None,
        clean: Sequence[LabeledImage] = (),
    ) -> Generator:
        from actors.generators.layout.generator import LayoutGenerator
        from actors.generators.layout.network import load_network

        return LayoutGenerator(self, real, load_network(self, classes, fitted))

    @override
    def fit_size(self) -> FitSize:
        return FitSize(steps=self.fit.steps, batch_size=self.fit.batch_size, accumulate=self.fit.accumulate)

    @override
    def open_fit(self, data: FitData, worker: Worker) -> Fit:
        from actors.generators.layout.fit import LayoutFit

        return LayoutFit(self, data, worker)
