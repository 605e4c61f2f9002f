"""What is lost between mining and the pool: counted by reason, and told where little is left."""

from collections import Counter
from collections.abc import Iterable, Sequence

from actors.records import WHOLE_IMAGE, Sample


def count_drawn(samples: Sequence[Sample]) -> tuple[int, int]:
    """How many mined instances the candidates were to show, and how many of these were drawn.

    No candidate counts for more than it was asked for: further places in one do not make up for none in another.
    """
    asked = [len(sample.lineage.box_indices) for sample in samples]
    drawn = [min(int(sample.drawn.sum()), number) for sample, number in zip(samples, asked, strict=True)]
    return sum(asked), sum(drawn)


def count_dropped(samples: Iterable[Sample]) -> tuple[dict[str, int], dict[str, int]]:
    """How many candidates were dropped, and how many boxes rejected in candidates, kept or not; by "filter: reason"."""
    images: Counter[str] = Counter()
    boxes: Counter[str] = Counter()
    for sample in samples:
        images.update([sample.dropped] if sample.dropped else [])
        boxes.update(f"{v.filter}: {v.reason}" for v in sample.verdicts if v.box != WHOLE_IMAGE and not v.keep)
    return dict(sorted(images.items())), dict(sorted(boxes.items()))


def warnings(samples: Sequence[Sample]) -> list[str]:
    """One line for each way in which a round has lost most of its candidates ``samples``, or of their instances."""
    asked, drawn = count_drawn(samples)
    few_drawn = (
        f"only {drawn} of {asked} mined instances were drawn; the generator had no room for the others, or no picture "
        "(inpaint: a higher generator.insert moves more of them to free places)"
    )
    return [few_drawn] if 2 * drawn < asked else []
