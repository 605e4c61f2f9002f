"""The config section of the guard."""

from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from actors.config import Config


def _something_to_train_on(num_folds: int) -> int:
    if num_folds == 1:
        raise ValueError("one fold leaves no images to train on; give 0 (off), or 2 or more")
    return num_folds


NumFolds = Annotated[int, Field(ge=0), AfterValidator(_something_to_train_on)]
Weight = Annotated[float, Field(gt=0.0, lt=1.0)]


class GuardConfig(Config):
    """Choice of a round's detector on training images alone: control, loop, or averaged weights (arXiv 2109.01903)."""

    folds: NumFolds = 0
    """Number of folds of the training images, or 0 for no guard. For each fold, a detector is trained like the control
    and another one like the loop's, both without its images, and both are measured on these. With three folds, each
    takes two thirds of a training's steps. In an ablation, arms run without a guard unless they set this key. Folds do
    not help if detector.weights were trained on the same images."""
    blends: tuple[Weight, ...] = (0.25, 0.5, 0.75)
    """Blends to choose among, besides control and loop: the loop's share in the average of the weights of both
    detectors."""

    @field_validator("blends")
    @classmethod
    def _each_once(cls, blends: tuple[float, ...]) -> tuple[float, ...]:
        if len({f"{one:g}" for one in blends}) < len(blends):
            raise ValueError(f"each blend may occur once: {list(blends)}")
        return blends
