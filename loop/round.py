"""One round, on one screen: find what the detector gets wrong, picture it anew, keep what holds up, retrain, measure.

Every step leaves its record in the round's folder, and is skipped where the record is there already.
"""

from collections.abc import Sequence

from actors.attributes import attributes, difficulties
from actors.fitting import Fitted
from actors.records import Lineage
from actors.rows import Row
from actors.seeds import derive_seed
from actors.storage import exclusive
from loop import mining, stages
from loop.cache import shared_place
from loop.context import Loop, RoundResult
from loop.cross_fit import detect_unseen
from loop.keep import keep_failed
from loop.progress import StageProgress
from loop.report import losses
from loop.state import Fate, Mined, Pooled, State, once


def run_round(loop: Loop, state: State) -> RoundResult:
    """One round more, from ``state``. Raises TooManyFailuresError where too many candidates could not be made."""
    number = state.round + 1
    place = loop.folder.round(number)
    mined = once(place / "mine.json", Mined, lambda: mine(loop, state))
    lineages = mining.plan(
        mined.instances,
        copies=loop.config.generation.copies,
        generator=loop.config.generator.kind,
        strategy=loop.config.generator.requested(),
        round_index=number,
        seed=loop.config.seed,
    )
    generator = fit(loop, state, mined)
    pooled = once(place / "pool.json", Pooled, lambda: generate_and_judge(loop, state, generator, lineages))
    pool = (*state.pool, *loop.folder.samples(number, Fate.KEPT))
    start = state.detector if loop.config.training.start == "previous" else None
    arm = loop.trainings.arm(place, number, label=f"round {number}", mixing=loop.config.mixing, pool=pool, start=start)
    control = loop.trainings.control(number)
    after = state.next(detector=arm.checkpoint, generator=generator, pool=pool)
    return RoundResult(state=after, mined=mined, pooled=pooled, arm=arm, control=control)


def mine(loop: Loop, state: State) -> Mined:
    """Look at every real training image with the current detector, and spend the budget on what it gets wrong.

    With mining.detector another one looks, and with cross-fitting detectors that have not seen the image. Where runs
    share, one of them does it for all.
    """
    decides = ("mining", "detector", "seed")
    shared = shared_place("mined", loop.config, decides, [loop.folder.train_records, state.detector])
    if shared is None:
        return _mine(loop, state)
    with exclusive(shared):
        return once(shared / f"{state.round + 1:03d}.json", Mined, lambda: _mine(loop, state))


def _mine(loop: Loop, state: State) -> Mined:
    config, images, asked = loop.config, loop.data.splits["train"], loop.trainings.asked()
    unseen = detect_unseen(asked) if config.mining.cross_fit else None
    eyes = asked.control(0).checkpoint if config.mining.detector and not unseen else state.detector
    with loop.reporter.stage("mine", len(images)) as progress:
        seen, cost = unseen or stages.detect(images, asked.config.detector, eyes, config.hosting, progress.advance)
        instances = [
            instance for image in images for instance in attributes(image, seen[image.id], **config.mining.attribute())
        ]
        shares = mining.difficulty_shares(instances, loop.data.classes)
        taken = mining.select(instances, config.mining, derive_seed(config.seed, "mine", state.round))
        num_hard = sum(share.num_hard for share in shares)
        progress.reach(len(images), f"{num_hard} of {len(instances)} boxes hard, {len(taken)} taken")
    for warning in mining.warnings(shares, config.mining):
        loop.reporter.warn(warning)
    return Mined(instances=taken, found=tuple(instances), shares=shares, cost=cost)


def fit(loop: Loop, state: State, mined: Mined) -> Fitted | None:
    """The generator, fitted anew on the real training images where that is due; None where it does not learn."""
    config = loop.config
    if not (config.generator.learns and config.fit.is_due(state.round + 1)):
        return state.generator
    known = difficulties(loop.data.splits["train"], mined.found)
    return loop.trainings.fit(
        config.generator, known, number=state.round + 1, detector=state.detector, start=state.generator
    )


def generate_and_judge(loop: Loop, state: State, generator: Fitted | None, lineages: Sequence[Lineage]) -> Pooled:
    """Draw each lineage's candidate, look at it, judge it, write it down: one stream, whose pixels stay in the actors.

    Candidates that an interrupted start has judged already are not drawn again.
    """
    config, number = loop.config, state.round + 1
    place = loop.folder.round(number)
    done = {sample_id for fate in Fate for sample_id in loop.folder.sample_ids(number, fate)}
    todo = [lineage for lineage in lineages if lineage.id not in done]
    decides = ("generator", "detector")
    weights = generator.checkpoint if generator else None
    shared = shared_place("candidates", config, decides, [loop.folder.train_records, state.detector, weights])
    records, classes = str(loop.folder.train_records), loop.data.classes
    with loop.reporter.stage("generate and judge", len(todo)) as progress:
        candidates = stages.generate(todo, config, records, classes, weights, shared)
        inspected = stages.inspect(candidates, config, state.detector, shared)
        states = str(loop.folder.filter_states)
        judged = stages.judge(inspected, config, state.detector, states, records)
        kept = stages.keep(judged, config, str(place))
        collected = stages.collect(kept, config.hosting, _counting(progress))
    keep_failed(collected.rows, place, config.generation.max_failed_share * len(lineages))
    for warning in losses.warnings(loop.folder.judged(number)):
        loop.reporter.warn(warning)
    kept_ids, dropped_ids = (loop.folder.sample_ids(number, fate) for fate in Fate)
    return Pooled(kept=kept_ids, dropped=dropped_ids, cost=collected.cost)


def _counting(progress: StageProgress) -> stages.OnRow:
    """Counts what comes out as kept or dropped."""
    counts = {"kept": 0, "dropped": 0}

    def count(row: Row) -> None:
        counts["dropped" if row["dropped"] else "kept"] += 1
        progress.note(f"{counts['kept']} kept, {counts['dropped']} dropped")
        progress.advance()

    return count
