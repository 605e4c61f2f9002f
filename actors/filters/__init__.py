"""Filters judge candidates, each verdict with score, threshold and reason; the union of their configs."""

from typing import Annotated

from pydantic import Field

from actors.filters.agreement import AgreementConfig
from actors.filters.blank import BlankConfig
from actors.filters.duplicate import DuplicateConfig
from actors.filters.naturalness import NaturalnessConfig

FilterConfig = Annotated[
    AgreementConfig | BlankConfig | DuplicateConfig | NaturalnessConfig, Field(discriminator="kind")
]
