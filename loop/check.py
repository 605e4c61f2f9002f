"""The plan of a run, without starting it: counts, disk, time, and the resolved config."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import yaml
from upath import UPath

from actors.config import Config, Need
from actors.counted import counted
from actors.detectors.base import DetectorBase
from actors.fitting import Learner
from actors.images import reduced_size
from actors.storage import is_local
from loop import duration
from loop.config import LoopConfig
from loop.cross_fit import check_folds, fold_steps, folds_of_filters
from loop.data.advice import advise
from loop.data.importing import Dataset, import_data
from loop.state import RunFolder
from loop.training.base import trainer_of

BYTES_A_PIXEL = 2.0
"""Upper estimate for a lossless picture: candidates of BCCD take 1.0, of the world 1.3, of DeepPCB 0.2."""
FEW_VAL = 20
"""With fewer validation images the bootstrap interval is unreliable."""

_FOUND, _MISSING = "found", "MISSING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Number and size of the real images."""

    images: Mapping[str, int]  # by split
    pixels: float  # mean per training image, as a run draws into it
    boxes: int | None = None  # in the training images, without ignored ones; None before the world is rendered
    note: str = ""  # on the images as a whole
    told: tuple[str, ...] = ()  # what the import left out or changed
    advice: tuple[str, ...] = ()  # on the data


def describe(config: LoopConfig) -> str:
    """The plan of ``config`` as text.

    Raises ValueError if its data, its ``training.overrides`` or weights of a local file cannot be used.
    """
    counts = _count(config)
    training, mining = config.training, config.mining
    num_candidates = min(mining.budget, counts.images["train"]) * config.generation.copies
    num_folds = mining.cross_fit if config.rounds else 0
    num_of_filters = folds_of_filters(config) if config.rounds else 0
    check_folds(config, counts.images["train"])
    num_of_guard = config.guard.folds if config.rounds else 0
    num_arms = config.rounds + (config.rounds + 1 if training.start == "previous" else 1)
    num_trainings = config.evaluation.seeds * num_arms
    num_trainings += int(mining.detector is not None and config.rounds > 0 and not num_folds)
    own_folds = num_folds if mining.detector else 0
    shared_folds = {num_of_filters, num_of_guard, num_folds - own_folds}  # equal ones are trained once
    folds = [number for number in (own_folds, *shared_folds, *[num_of_guard] * config.rounds) if number]
    by_steps = Counter(steps for number in folds for steps in [fold_steps(training, number)] * number)
    num_steps = num_trainings * training.steps + sum(steps * number for steps, number in by_steps.items())
    most = min(mining.budget, counts.boxes or mining.budget)
    disk_mb = config.rounds * num_candidates * counts.pixels * BYTES_A_PIXEL / 1e6
    folder = RunFolder(UPath(config.root) / config.name)
    state = f"{folder.num_finished()} of {counted(config.rounds, 'round')} finished" if folder.path.exists() else "new"
    rows = {
        "run": f"{folder.path} ({state}), fingerprint {config.fingerprint()}",
        "real images": ", ".join(f"{number} {split}" for split, number in counts.images.items()) + counts.note,
        **_listed("import", counts.told),
        "a round": f"mine {counted(counts.images['train'], 'image')}, select up to {counted(most, 'instance')} "
        f"({mining.policy})",
        "": f"draw up to {counted(num_candidates, 'candidate')} ({config.generator.kind}) for "
        f"{counted(len(config.filters), 'filter')}; rejected boxes: {config.rejected_boxes}{_kept(config)}",
        " ": f"train {training.steps} steps of {counted(training.batch_size, 'image')} at "
        f"{config.detector.image_size_px} px, p = {config.mixing.p:g}{_until(config)}; evaluate on "
        f"{counted(counts.images['val'], 'image')}",
        **_mining_detector(config),
        **_cross_fit(config, counts, num_folds),
        **_utility(config, num_of_filters),
        **_guard(config, num_of_guard),
        **_fit(config, counts, "fit", config.generator),
        **_fit(config, counts, "fit refiner", config.refiner),
        "trainings": f"{num_trainings} of {training.steps} steps, controls included{_folds(by_steps)} (finished ones "
        "are reused)",
        **_listed("note", [*counts.advice, *(_advice(config, counts) if config.rounds else ())]),
        "disk": f"up to {disk_mb:.0f} MB of candidates",
        "time": duration.told(config, num_steps, num_candidates),
        **_needs(config),
    }
    _check_weights(config)
    text = "\n".join(f"{key:<12} {value}" for key, value in rows.items())
    return f"{text}\n\n{yaml.safe_dump(config.model_dump(mode='json'), sort_keys=False)}"


def _folds(by_steps: Mapping[int, int]) -> str:
    return "".join(f", and {number} of {steps} steps without a fold" for steps, number in by_steps.items())


def _until(config: LoopConfig) -> str:
    until = config.mixing.until
    return "" if until == 1.0 else f" in the first {until:.0%} of the steps"


def _kept(config: LoopConfig) -> str:
    keep, by = config.generation.keep, config.generation.select
    return "" if keep is None else f"; keep at most {keep}, {'at random' if by == 'random' else f'the best by {by}'}"


def _advice(config: LoopConfig, counts: Counts) -> Iterator[str]:
    """Notes on settings that are valid but rarely intended."""
    training, num_val = config.training, counts.images["val"]
    if config.rejected_boxes == "restore" and training.background_ignore:
        yield "training.background_ignore is not needed with rejected_boxes: restore, which leaves no object unlabelled"
    judges_boxes = any(one.judges_boxes for one in config.filters)
    if config.rejected_boxes == "ignore" and judges_boxes and not training.background_ignore:
        yield (
            "rejected_boxes: ignore takes labels from objects that stay in the picture, and they are trained as "
            "background; set rejected_boxes: restore, or training.background_ignore: true"
        )
    if num_val < FEW_VAL:
        yield (
            f"with {counted(num_val, 'validation image')} the interval of the gain is unreliable; give at least "
            f"{FEW_VAL}, better 100 (data.val_frac holds out more if the data has no validation split)"
        )
    if needless := needless_refiner(config):
        yield needless
    if config.mining.policy == "utility" and config.rounds == 1:
        yield "mining.policy: utility learns from earlier rounds; with rounds: 1 it spreads the budget at random"
    if config.detector.has_weights and training.start != "weights":
        yield (
            f"training.start: {training.start} does not use the weights of the detector; set it to weights to start "
            "from them"
        )


def needless_refiner(config: LoopConfig) -> str:
    """A note where the refiner of ``config`` has nothing to mend; else empty."""
    if not (config.rounds and config.refines and config.generator.boxes_are_exact):
        return ""
    return (
        f"the boxes of generator {config.generator.kind} are exact; a refiner can only move them away. Leave out the "
        "section refiner, or choose another generator"
    )


def _listed(key: str, lines: Iterable[str]) -> dict[str, str]:
    """A row of several lines; no row without lines."""
    text = f"\n{'':<13}".join(lines)
    return {key: text} if text else {}


def _mining_detector(config: LoopConfig) -> dict[str, str]:
    other = config.mining.detector
    if other is None or not config.rounds:
        return {}
    return {"attributes": f"{other.model} at {other.image_size_px} px, trained as the control is, decides what is easy"}


def _cross_fit(config: LoopConfig, counts: Counts, num_folds: int) -> dict[str, str]:
    if not num_folds:
        return {}
    num_seen = counts.images["train"] * (num_folds - 1) / num_folds
    return {
        "cross-fit": f"{num_folds} detectors, each trained on {counted(f'{num_seen:.0f}', 'image')}, decide which "
        f"boxes of the others are easy: {_more_steps(config, num_folds)}, once, in parallel as far as "
        "the cluster has room"
    }


def _more_steps(config: LoopConfig, num_folds: int) -> str:
    return f"{num_folds * fold_steps(config.training, num_folds)} more steps"


def _utility(config: LoopConfig, num_folds: int) -> dict[str, str]:
    if not num_folds:
        return {}
    shared = num_folds == config.mining.cross_fit and config.mining.detector is None
    trained = "those of the cross-fit" if shared else f"{_more_steps(config, num_folds)}, once"
    return {
        "utility": f"{num_folds} detectors judge candidates by the loss on images that they have not seen: {trained}"
    }


def _guard(config: LoopConfig, num_folds: int) -> dict[str, str]:
    if not num_folds:
        return {}
    others = {folds_of_filters(config), 0 if config.mining.detector else config.mining.cross_fit}
    more_steps = _more_steps(config, num_folds)
    like_control = "those of the other folds" if num_folds in others else f"{more_steps}, once"
    return {
        "guard": f"{num_folds} detectors like the control ({like_control}) and {num_folds} like the loop's "
        f"({more_steps} a round) choose the round's detector on images that they have not seen: {_choices(config)}"
    }


def _choices(config: LoopConfig) -> str:
    return ", ".join(["control", *(f"blend {share:g}" for share in config.guard.blends)]) + " or loop"


def _fit(config: LoopConfig, counts: Counts, key: str, learner: Learner) -> dict[str, str]:
    size = learner.fit_size()
    if size is None or not config.rounds:
        return {}
    boxes = "the real boxes" if counts.boxes is None else counted(counts.boxes, "real box", "real boxes")
    num_fits = sum(config.fit.is_due(number) for number in range(1, config.rounds + 1))
    when = "first" if num_fits == 1 else f"in {num_fits} of {config.rounds} rounds, each time from its current weights"
    what = "generator" if learner is config.generator else "refiner"
    return {key: f"the {what} {when}, {size.steps} steps of {size.batch_size} on {boxes} (a finished fit is reused)"}


def _needs(config: LoopConfig) -> dict[str, str]:
    """Files that a run of ``config`` needs, and their state."""
    needed = _component_needs(config)
    if config.rounds and config.evaluation.inception is not None:
        needed.append(Need(what="InceptionV3's weights", place=config.evaluation.inception, is_release=False))
    needs = {f"{need.what}: {need.place}": _whereabouts(need) for need in needed}
    return _listed("needs", [f"{need} ({whereabouts})" for need, whereabouts in needs.items()])


def check_images(config: LoopConfig, data: Dataset) -> None:
    """Raise ValueError or OSError if a component that learns cannot work with the real images of ``data``."""
    for learner in (config.generator, config.refiner) if config.rounds else ():
        learner.check_images(data.splits["train"], data.clean if learner.uses_clean else ())


def missing(config: LoopConfig) -> list[str]:
    """Files that a run of ``config`` needs on this machine and that are missing."""
    return [f"{need.what}: {need.place}" for need in _component_needs(config) if _whereabouts(need) == _MISSING]


def _component_needs(config: LoopConfig) -> list[Need]:
    """Files that the components of ``config`` need.

    Raises ValueError or OSError if a detector is not known, or does not know a setting of ``training.overrides``.
    """
    for detector in filter(None, (config.detector, config.mining.detector)):
        detector.check_architecture()
        if detector is config.detector or config.rounds:
            trainer_of(detector).check_settings(config.training.overrides)
    parts: list[Config] = list(_from_weights(config))
    if config.rounds:
        parts += [config.generator, *config.filters, config.refiner]
    return [need for part in parts for need in part.needs()]


def _from_weights(config: LoopConfig) -> Iterator[DetectorBase]:
    """The detectors that start from weights."""
    if config.training.start == "weights":
        yield config.detector
        if config.rounds and config.mining.detector:
            yield config.mining.detector


def _check_weights(config: LoopConfig) -> None:
    """Raise ValueError where weights of a local file do not fit their detector. They are loaded as a training does."""
    for detector in _from_weights(config):
        if (needs := detector.needs()) and all(_whereabouts(need) == _FOUND for need in needs):
            import torch

            with torch.random.fork_rng(devices=[]):
                detector.load_weights(detector.architecture(1), ("object",))


def _whereabouts(need: Need) -> str:
    if need.is_release:
        return "downloaded on first use, unless cached"
    if not is_local(UPath(need.place)):
        return "remote, not checked"
    place = UPath(need.place)
    return _FOUND if (place.is_dir() if need.is_folder else place.exists()) else _MISSING


def _count(config: LoopConfig) -> Counts:
    if config.data.format == "world":
        from loop.data.world import HEIGHT_PX, WIDTH_PX

        world = config.data.world
        num_train = min(world.train, config.data.subset or world.train)
        rendered = {"train": num_train, "val": world.val, **({"clean": world.clean} if world.clean else {})}
        return Counts(images=rendered, pixels=WIDTH_PX * HEIGHT_PX, note=" (rendered)")
    data = import_data(config.data, UPath(config.data.root or ""), config.seed)
    check_images(config, data)
    images = {split: counts.images for split, counts in data.report.splits.items()}
    train = data.splits["train"]
    limit_px = config.detector.picture_px
    sizes = [reduced_size(image.width, image.height, limit_px) for image in train]
    pixels = sum(width * height for width, height in sizes) / max(len(train), 1)
    num_large = sum(max(image.width, image.height) > limit_px for image in train)
    reduced = f"; {num_large} train reduced to {limit_px} px (detector.max_picture_px)" if num_large else ""
    boxes = sum(int((~image.annotation.ignore).sum()) for image in train)
    advice = tuple(advise(data, config.detector.image_size_px))
    return Counts(
        images=images, pixels=pixels, boxes=boxes, note=reduced, told=tuple(data.report.told()), advice=advice
    )
