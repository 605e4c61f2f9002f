"""Filters judge candidates, each verdict with score, threshold and reason; the union of their configs."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from actors.filters.aesthetic import Aesthetic, AestheticConfig
from actors.filters.agreement import Agreement, AgreementConfig
from actors.filters.alignment import Alignment, AlignmentConfig
from actors.filters.base import Filter, OpenEmbed, State
from actors.filters.blank import Blank, BlankConfig
from actors.filters.duplicate import Duplicate, DuplicateConfig
from actors.filters.naturalness import Naturalness, NaturalnessConfig
from actors.records import LabeledImage

FilterConfig = Annotated[
    AestheticConfig | AgreementConfig | AlignmentConfig | BlankConfig | DuplicateConfig | NaturalnessConfig,
    Field(discriminator="kind"),
]


def fit_filters(
    configs: Sequence[FilterConfig],
    train: Sequence[LabeledImage],
    held_out: Sequence[LabeledImage],
    classes: Sequence[str],
) -> dict[str, State]:
    """The state of each filter by its kind: plain JSON values, the same for the same images whatever their order.

    ``held_out`` are the validation and test images, used to refuse copies of them and for nothing else.
    """
    train = sorted(train, key=lambda image: image.id)
    held_out = sorted(held_out, key=lambda image: image.id)
    return {config.kind: _fit(config, train, held_out, classes) for config in configs}


def build_filters(
    configs: Sequence[FilterConfig], states: Mapping[str, State], open_embed: OpenEmbed | None = None
) -> list[Filter]:
    """The filters in the configured order, from what ``fit_filters`` returned.

    ``open_embed`` opens the current detector for filters that look through its eyes, when they first need it. Raises
    ValueError where one is needed and none is given.
    """
    return [_build(config, states[config.kind], open_embed) for config in configs]


def _fit(
    config: FilterConfig,
    train: Sequence[LabeledImage],
    held_out: Sequence[LabeledImage],
    classes: Sequence[str],
) -> State:
    match config:
        case AestheticConfig():
            return Aesthetic.fit(config, train, held_out)
        case AlignmentConfig():
            return Alignment.fit(config, train, classes)
        case BlankConfig():
            return Blank.fit(config, train, held_out)
        case DuplicateConfig():
            return Duplicate.fit(config, train, held_out)
        case NaturalnessConfig():
            return Naturalness.fit(config, train, held_out)
        case AgreementConfig():
            return {}


def _build(config: FilterConfig, state: State, open_embed: OpenEmbed | None) -> Filter:
    match config:
        case AestheticConfig():
            return Aesthetic(config, state)
        case AlignmentConfig():
            return Alignment(config, state, open_embed)
        case AgreementConfig():
            return Agreement(config, state)
        case BlankConfig():
            return Blank(config, state)
        case DuplicateConfig():
            return Duplicate(config, state)
        case NaturalnessConfig():
            return Naturalness(config, state)
