"""The filters of detloop: the union of their configs."""

from typing import Annotated

from pydantic import Field

from actors.custom import Open
from actors.filters.aesthetic import AestheticConfig
from actors.filters.agreement import AgreementConfig
from actors.filters.alignment import AlignmentConfig
from actors.filters.base import FilterBase
from actors.filters.blank import BlankConfig
from actors.filters.duplicate import DuplicateConfig
from actors.filters.naturalness import NaturalnessConfig
from actors.filters.utility import UtilityConfig

FilterConfig = Annotated[
    AestheticConfig
    | AgreementConfig
    | AlignmentConfig
    | BlankConfig
    | DuplicateConfig
    | NaturalnessConfig
    | UtilityConfig,
    Field(discriminator="kind"),
    Open(FilterBase, "detloop.filters"),
]
