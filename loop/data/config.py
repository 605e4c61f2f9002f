"""Config of the real images: a folder of labelled data, or the embedded data set."""

from typing import Literal, Self

from pydantic import Field, model_validator

from actors.config import Config


class WorldConfig(Config):
    """The embedded data set: rendered inspection scenes, so that a run needs no data of one's own."""

    train: int = Field(40, ge=1)
    """Training scenes."""
    val: int = Field(100, ge=1)
    """Validation scenes."""
    clean: int = Field(0, ge=0)
    """Further scenes with no objects in them, for generators that insert."""
    seed: int = 0
    """Draws the scenes; another seed is another data set."""


class DataConfig(Config):
    """The real images: a folder in a known format, or the embedded world."""

    format: Literal["auto", "coco", "yolo", "voc", "world"] = "auto"
    """Layout of the folder; auto looks at it."""
    root: str | None = None
    """Folder of the data set; not needed for the world."""
    train: str | None = None
    """Name of the training split where it is not the format's usual one."""
    val: str | None = None
    """Name of the validation split; without one, val_frac of the training images is held out."""
    test: str | None = None
    """Name of the test split; never trained on, and synthetic copies of it are refused."""
    val_frac: float = Field(0.2, gt=0.0, lt=1.0)
    """Share of the images held out where the data set has no validation split of its own."""
    subset: int | None = Field(None, ge=1)
    """Keep only this many training images, drawn by the run's seed: the low-data setting."""
    world: WorldConfig = WorldConfig()

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if self.root is None and self.format != "world":
            raise ValueError("give root, the folder of the data set (--set data.root=FOLDER)")
        if self.root is not None and self.format == "world":
            raise ValueError("format: world is rendered and takes no root; for a folder give format: auto")
        return self
