"""DetectorGAN as a component: construction and fit."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from typing_extensions import override

from actors.detector_loss import prefixes_of
from actors.fitting import Fit, FitData, FitSize, LossSource, Worker
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
    def check_sections(self, detector: LossSource, *, has_clean: bool) -> None:
        if self.place_masks and not has_clean:
            raise ValueError(
                "generator.places: masks are masks of images without objects, and there are none; give their folder as "
                "data.clean (format: world: their number as data.world.clean), or choose other places"
            )
        chosen, refused = prefixes_of(self.fit.unroll_parameters) or [], detector.once_differentiable
        clash = [one for one in refused if any(one.startswith(name) or name.startswith(one) for name in chosen)]
        if clash and self.fit.unroll_weight > 0:
            raise ValueError(
                f"generator.fit.unroll_parameters: the loss of {detector.model} has no second derivative by its "
                f"parameters {clash[0]}*, and the unrolled step needs it; set unroll_parameters: head, or "
                "unroll_weight: 0, or choose another detector"
            )

    @override
    def check_images(self, images: Sequence[LabeledImage], clean: Sequence[LabeledImage]) -> None:
        from actors.generators.insertion_gan.examples import check_labelled
        from actors.generators.insertion_gan.places import check_masks

        check_labelled(self, images)
        if self.place_masks:
            check_masks(self, clean)

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
