"""Config of the real images: a folder of labelled images, or the embedded data set."""

from typing import Literal, Self

from pydantic import Field, model_validator

from actors.config import Config

FEW_FAULTS = 3
"""Up to this many faulty boxes never stop an import: they can be looked at one by one."""


class WorldConfig(Config):
    """The embedded data set: rendered inspection scenes, for runs without data of your own."""

    train: int = Field(40, ge=1)
    """Number of training scenes."""
    val: int = Field(100, ge=1)
    """Number of validation scenes."""
    clean: int = Field(0, ge=0)
    """Number of additional scenes without objects; they are what ``data.clean`` is for a folder."""
    seed: int = 0
    """Seed of the scenes. Another seed gives another data set."""


class DataConfig(Config):
    """The real images: a folder in a known format, or the embedded data set."""

    format: Literal["auto", "coco", "yolo", "voc", "cvat", "world"] = "auto"
    """Format of the folder: auto detects it, world is the embedded data set."""
    root: str | None = None
    """Folder of the data set. Not used with format: world."""
    train: str | None = None
    """Name of the training split, if it is not a usual one."""
    val: str | None = None
    """Name of the validation split, if it is not a usual one. If there is none, val_frac of the training images is
    held out."""
    test: str | None = None
    """Name of the test split, if it is not a usual one. It is never trained on, and synthetic copies of its images are
    rejected."""
    labels: str | None = None
    """COCO file with other labels of training images, such as the corrected.json of ``detloop labels``. It names images
    by their paths below root. Training images that it does not name keep their own labels."""
    clean: str | None = None
    """Folder of pictures that hold no object of any class, such as parts without a defect or empty scenes: a path below
    root if there is such a folder, else a path as it is. Generators draw into them, and both arms train on them as
    images without boxes (``mixing.clean``). Near-copies of validation and test images are left out."""
    val_frac: float = Field(0.2, gt=0.0, lt=1.0)
    """Fraction of the training images to hold out if the data set has no validation split."""
    subset: int | None = Field(None, ge=1)
    """Use only this many training images, sampled with the run's seed: the low-data setting."""
    follow_links: bool = False
    """Read files behind symbolic links that lead out of the folder, as in caches of Hugging Face and DVC."""
    max_faulty_frac: float = Field(0.05, ge=0.0, le=1.0)
    """Stop the import if more than this fraction of a split's boxes are faulty: they may be in another notation. Up to
    three boxes never stop it."""
    classes: tuple[str, ...] | None = None
    """Names of the classes in the order of their ids, for YOLO labels without names. Data sets with names of their own
    keep them; other names are then an error."""
    yolo_rows: Literal["auto", "box", "polygon"] = "auto"
    """Meaning of YOLO rows with six or more numbers. box: the first four are the box, the others keypoints, confidence
    or track id. polygon: all are points. auto: what fits the rows of the whole data set; if both do, it is an error."""
    world: WorldConfig = WorldConfig()

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if self.root is None and self.format != "world":
            raise ValueError("give root, the folder of the data set (--set data.root=FOLDER)")
        if self.root is not None and self.format == "world":
            raise ValueError("format: world is rendered and takes no root; for a folder give format: auto")
        if self.clean is not None and self.format == "world":
            raise ValueError("format: world renders its own images without objects; give their number as world.clean")
        return self

    @property
    def clean_folder(self) -> str | None:
        """The folder of the images without objects; None if there are none."""
        return "images/clean" if self.format == "world" and self.world.clean else self.clean

    def accepts_faults(self, num_faulty: int, num_boxes: int) -> bool:
        """True if so few of the boxes are faulty that the import goes on without them."""
        return num_faulty <= max(FEW_FAULTS, self.max_faulty_frac * num_boxes)
