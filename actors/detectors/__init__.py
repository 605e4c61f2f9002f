"""The detectors of detloop: the union of their configs."""

from typing import Annotated

from pydantic import Field

from actors.custom import Open
from actors.detectors.base import DetectorBase
from actors.detectors.torchvision.component import TorchvisionConfig
from actors.detectors.ultralytics.component import UltralyticsConfig

DetectorConfig = Annotated[
    UltralyticsConfig | TorchvisionConfig,
    Field(discriminator="kind"),
    Open(DetectorBase, "detloop.detectors", default="ultralytics"),
]

FAMILIES: dict[str, type[DetectorBase]] = {"ultralytics": UltralyticsConfig, "torchvision": TorchvisionConfig}
"""The families of detloop by their kinds."""
