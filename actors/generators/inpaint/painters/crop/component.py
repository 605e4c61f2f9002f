"""The crop painter as a component: construction and fit."""

from typing import ClassVar, Literal

from typing_extensions import override

from actors.config import Need
from actors.fitting import Fit, FitData, FitSize, Worker
from actors.generators.inpaint.painters.base import CropRule, Painter, PainterBase
from actors.generators.inpaint.painters.crop.config import CropSettings


class CropConfig(CropSettings, PainterBase):
    """Network, fit and sampling of the crop painter."""

    takes_difficulty: ClassVar = True

    kind: Literal["crop"] = "crop"

    @property
    @override
    def varies_instances(self) -> bool:
        return self.varies

    @override
    def build(self, classes: tuple[str, ...], fitted: str | None = None) -> Painter:
        from actors.generators.inpaint.painters.crop.painter import load_painter

        return load_painter(self, classes, fitted)

    @override
    def needs(self) -> tuple[Need, ...]:
        if not self.vae:
            return ()
        from actors.generators.diffusion.weights import NETWORK_FILES, is_hub_id

        is_release = is_hub_id(self.vae)
        places = [self.vae] if is_release else [f"{self.vae}/{file}" for file in NETWORK_FILES]
        return tuple(Need(what="painter.vae", place=place, is_release=is_release) for place in places)

    @override
    def files_digest(self) -> str | None:
        from actors.generators.diffusion.weights import weights_digest

        return weights_digest(self.vae) if self.vae else None

    @override
    def fit_size(self) -> FitSize:
        return FitSize(steps=self.fit_steps, batch_size=self.fit_batch_size)

    @override
    def open_fit(self, data: FitData, worker: Worker, crops: CropRule) -> Fit:
        from actors.generators.inpaint.painters.crop.fit import CropFit

        return CropFit(self, data, worker, crops)
