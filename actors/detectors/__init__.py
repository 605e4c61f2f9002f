"""The detectors of detloop: the union of their configs."""

from typing import Annotated

from actors.custom import Open
from actors.detectors.base import DetectorBase
from actors.detectors.ultralytics.component import UltralyticsConfig

DetectorConfig = Annotated[UltralyticsConfig, Open(DetectorBase, "detloop.detectors")]
