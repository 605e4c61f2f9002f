"""Config keys of DetectorGAN; see ``component`` for the component itself.

The paper's weights, rates and schedule were not found. The docstrings say what stands in their place.
"""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from actors.config import Config, Need
from actors.detector_loss import Parameters
from actors.generators.diffusion.unet import Channels, UNetConfig


class InsertionFitConfig(Config):
    """The fit of generators and discriminators, with the detector in its loop."""

    steps: int = Field(1000, ge=1)
    """Steps. In each, the discriminators are updated, then the generators, then the detector. With fewer than about
    500, objects are blurred patches."""
    batch_size: int = Field(8, ge=1)
    """Windows of each kind per step, over all workers: with objects, and without (CycleGAN: 1)."""
    learning_rate: float = Field(1e-3, gt=0.0)
    """Rate of Adam (beta1 0.5) for all networks but the detector: constant over the first half of the steps, then
    falling to 0. The paper's was not found; CycleGAN's is 2e-4, for many more steps."""
    local_weight: float = Field(5.0, ge=0.0)
    """Weight of the local discriminator, which is shown the object alone. The paper's was not found; with less, fits of
    some hundred steps insert nothing."""
    local_px: int = Field(32, ge=8, multiple_of=8)
    """Side of the crops that the local discriminator is shown."""
    cycle_weight: float = Field(2.0, ge=0.0)
    """lambda_cyc, weight of the cycle losses, which are means over the mask. The paper's was not found; CycleGAN's is
    10, with means over the image."""
    outside_weight: float = Field(10.0, ge=0.0)
    """Weight of the change outside the mask by a generator, before its output is confined to the mask (ours)."""
    pool_size: int = Field(50, ge=1)
    """Drawn windows that the discriminators are shown again (the paper's was not found; CycleGAN's)."""
    warmup_steps: int = Field(200, ge=0)
    """First steps without the detector (the paper's number was not found)."""
    syn_weight: float = Field(0.3, ge=0.0)
    """lambda_syn, weight of L_syn: the detector's loss on drawn windows (the paper's was not found). The norm of its
    gradient by the drawn windows is this times that of all losses but L_syn and L_unroll, whatever the detector (ours):
    unscaled, it was found to be 270 times that."""
    unroll_weight: float = Field(0.3, ge=0.0)
    """lambda_unroll, weight of L_unroll, likewise scaled: the detector's loss on real images after a step of size eta
    on real and drawn ones (the paper's was not found; unscaled, it was found to be 40 times all others). With
    ``syn_weight`` and ``unroll_weight`` 0 the fit is a plain GAN, and does not depend on the detector."""
    unroll_parameters: Parameters = "head"
    """Parameters of the detector that are trained during the fit, in the unrolled step as well: those of its head, all,
    or those whose names begin with one of these prefixes. More of them cost memory and time. Those of Faster R-CNN's
    backbone are refused: RoIAlign has no second derivative."""
    unroll_lr_factor: float = Field(1.0, gt=0.0)
    """eta of the unrolled step, as a multiple of the detector's own learning rate."""
    detector_lr: float | None = Field(None, gt=0.0)
    """The detector's learning rate during the fit, of Adam; default: that of ``training.overrides``, else 0.001."""
    detector_every: int = Field(2, ge=1)
    """The detector takes part in every n-th step only, to save time (ours)."""
    detector_batch_size: int = Field(4, ge=1)
    """Drawn and, twice, real views per step that the detector is given, over all workers."""
    view_px: int = Field(160, ge=32, multiple_of=32)
    """Side of the square views around an object that the detector is given, at the scale at which it sees pictures
    (``detector.image_size_px``); not more than the whole picture."""

    @model_validator(mode="after")
    def _views_have_windows(self) -> Self:
        if self.detector_batch_size > self.batch_size:
            raise ValueError(
                f"detector_batch_size ({self.detector_batch_size}) is more than batch_size ({self.batch_size}): the "
                "detector is given windows of the batch"
            )
        return self


class InsertionGANSettings(UNetConfig):
    """Windows, networks, places and fit of DetectorGAN."""

    not_in_fit: ClassVar = frozenset({"batch_size", "tries"})

    size_px: int = Field(64, ge=32, multiple_of=8)
    """Side of the windows; larger objects are shrunk to fit, smaller ones drawn at their own size."""
    channels: Channels = (16, 32, 64)
    """Channels of the generators' levels, multiples of 8; each level halves the resolution."""
    judge_channels: Channels = (16, 32, 64)
    """Channels of the discriminators' levels; each level halves the resolution."""
    noise_channels: int = Field(1, ge=0)
    """Planes of noise that the generators are given (ours), so that one place gives different objects."""
    context: float = Field(1.5, ge=1.0)
    """Side of the window relative to the box's longer side."""
    margin: float = Field(0.1, ge=0.0, le=1.0)
    """The mask reaches beyond the box by this share of its sides."""
    mask: Literal["box", "ellipse"] = "box"
    """Shape of the mask: the box with its margin, or the ellipse in it."""
    feather_px: float = Field(2.0, ge=0.0)
    """Width over which drawn pixels fade in, inside the mask."""
    flip: bool = True
    """Windows may be mirrored, in the fit."""
    rotate: bool = True
    """Windows may be rotated by 90, 180 and 270 degrees, in the fit, for objects seen from above."""
    places: Literal["context", "uniform", "masks"] = "context"
    """Places of inserted objects. context: where the image around the box resembles that of a real instance; uniform:
    anywhere beside other objects; masks: likewise, with the centre of the box where ``place_masks`` allows it."""
    place_masks: str | None = None
    """Folder of pictures with the names of the images without objects, below ``data.clean``; objects may be inserted
    where they are white (ours; the paper takes places from each data set's own knowledge)."""
    tries: int = Field(3, ge=1)
    """Images tried for a candidate; the one whose surroundings match best is used."""
    batch_size: int = Field(16, ge=1)
    """Windows drawn at a time."""
    fit: InsertionFitConfig = InsertionFitConfig()

    def needs(self) -> tuple[Need, ...]:
        """The folder of masks."""
        if self.place_masks is None:
            return ()
        return (Need(what="folder of masks of places", place=self.place_masks, is_release=False, is_folder=True),)

    @property
    def has_detector_terms(self) -> bool:
        """Whether the detector takes part in the fit."""
        return self.fit.syn_weight > 0 or self.fit.unroll_weight > 0

    @model_validator(mode="after")
    def _masks_are_given(self) -> Self:
        if (self.places == "masks") != (self.place_masks is not None):
            raise ValueError(
                f"places: {self.places}, place_masks: {self.place_masks}: places: masks takes the folder place_masks, "
                "and other places take none"
            )
        return self

    @model_validator(mode="after")
    def _judges_fit(self) -> Self:
        least = 2 ** (len(self.judge_channels) + 1)
        for name, side in (("size_px", self.size_px), ("fit.local_px", self.fit.local_px)):
            if side < least:
                raise ValueError(
                    f"{name} {side}: {len(self.judge_channels)} judge_channels take at least {least} px; give fewer"
                )
        return self

    @model_validator(mode="after")
    def _window_shows_surroundings(self) -> Self:
        side = 1 + 2 * self.margin
        if self.context <= side:
            raise ValueError(
                f"context {self.context:g}: with margin {self.margin:g} the mask is {side:g} times the box's side and "
                "leaves nothing of the window around it; raise context or lower margin"
            )
        return self
