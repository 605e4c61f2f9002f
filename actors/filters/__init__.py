"""Filters judge candidates, each verdict with score, threshold and reason; the union of their configs."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from actors.filters.agreement import Agreement, AgreementConfig
from actors.filters.base import Filter, State
from actors.filters.blank import Blank, BlankConfig
from actors.filters.duplicate import Duplicate, DuplicateConfig
from actors.filters.naturalness import Naturalness, NaturalnessConfig
from actors.records import LabeledImage

FilterConfig = Annotated[
    AgreementConfig | BlankConfig | DuplicateConfig | NaturalnessConfig, Field(discriminator="kind")
]


def fit_filters(
    configs: Sequence[FilterConfig], train: Sequence[LabeledImage], held_out: Sequence[LabeledImage]
) -> dict[str, State]:
    """The state of each filter by its kind: plain JSON values, the same for the same images whatever their order.

    ``held_out`` are the validation and test images, used to refuse copies of them and for nothing else.
    """
    train = sorted(train, key=lambda image: image.id)
    held_out = sorted(held_out, key=lambda image: image.id)
    return {config.kind: _fit(config, train, held_out) for config in configs}


def build_filters(configs: Sequence[FilterConfig], states: Mapping[str, State]) -> list[Filter]:
    """The filters in the configured order, from what ``fit_filters`` returned."""
    return [_build(config, states[config.kind]) for config in configs]


def _fit(config: FilterConfig, train: Sequence[LabeledImage], held_out: Sequence[LabeledImage]) -> State:
    match config:
        case BlankConfig():
            return Blank.fit(config, train, held_out)
        case DuplicateConfig():
            return Duplicate.fit(config, train, held_out)
        case NaturalnessConfig():
            return Naturalness.fit(config, train, held_out)
        case AgreementConfig():
            return {}


def _build(config: FilterConfig, state: State) -> Filter:
    match config:
        case AgreementConfig():
            return Agreement(config, state)
        case BlankConfig():
            return Blank(config, state)
        case DuplicateConfig():
            return Duplicate(config, state)
        case NaturalnessConfig():
            return Naturalness(config, state)
