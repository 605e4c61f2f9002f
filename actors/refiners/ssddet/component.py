"""SSD-Det as a component: construction and fit."""

from typing import ClassVar, Literal

from typing_extensions import override

from actors.fitting import Fit, FitData, FitSize, LossSource, Worker
from actors.refiners.base import Refiner, RefinerBase
from actors.refiners.ssddet.config import SSDDetSettings


class SSDDetConfig(SSDDetSettings, RefinerBase):
    """Moves boxes by multiple-instance learning on the detector's features."""

    runs_network: ClassVar = True

    kind: Literal["ssddet"] = "ssddet"

    @property
    @override
    def uses_detector(self) -> bool:
        return True

    @override
    def build(self, detector: LossSource, checkpoint: str | None = None) -> Refiner:
        from actors.refiners.ssddet.refiner import SSDDetRefiner

        if checkpoint is None:
            raise ValueError(f"{self.kind}: no checkpoint of a fit is given; fit it on the run's images first")
        return SSDDetRefiner(self, detector, checkpoint)

    @override
    def fit_size(self) -> FitSize:
        return FitSize(steps=self.fit.steps, batch_size=self.fit.batch_size)

    @override
    def open_fit(self, data: FitData, worker: Worker) -> Fit:
        from actors.refiners.ssddet.fit import SSDDetFit

        return SSDDetFit(self, data, worker)
