"""One round: mine, fit, generate, inspect, judge, refine, keep, train, evaluate.

Each step writes a record into the round's folder. A step whose record exists is skipped.
"""

from collections.abc import Sequence

from actors.attributes import attributes, difficulties
from actors.counted import counted
from actors.fitting import Fitted
from actors.records import Lineage, Sample
from actors.rows import Row
from actors.seeds import derive_seed
from actors.storage import exclusive
from loop import mining, selection, stages
from loop.adapters import Sources
from loop.arms import Arm, seed_place, unmined
from loop.cache import shared_place
from loop.config import MixingConfig
from loop.context import Loop, RoundResult
from loop.cross_fit import detect_unseen, held_back
from loop.evaluation import counts
from loop.guard.apply import Guarded, copied, guarded
from loop.keep import Fate, keep_failed, set_aside
from loop.progress import StageProgress
from loop.state import Mined, Pooled, State, once


def run_round(loop: Loop, state: State) -> RoundResult:
    """Run the round after ``state``. Raises TooManyFailuresError if too many candidates failed."""
    config, number = loop.config, state.round + 1
    place = loop.folder.round(number)
    mined = once(place / "mine.json", Mined, lambda: mine(loop, state))  # within the budget
    generator = fit(loop, state, mined)  # if it learns and a fit is due
    refiner = fit_refiner(loop, state)  # likewise
    sources = round_sources(loop, state, generator, refiner)
    candidates = stages.generate(missing_candidates(loop, state, mined), config, sources)  # lazy: nothing runs yet
    inspected = stages.inspect(candidates, config, sources)
    judged = stages.judge(inspected, config, sources)
    refined = stages.refine(judged, config, sources)  # nothing with the identity
    kept = stages.keep(refined, config, str(place))
    pooled = once(place / "pool.json", Pooled, lambda: run_stream(loop, state, kept))  # runs the stream
    pool = (*state.pool, *loop.folder.samples(number, Fate.KEPT))
    lack = too_small(pool, config.mixing)
    arms, guard = (keep_controls(loop, number, lack), None) if lack else train(loop, state, pool)
    controls = loop.trainings.controls(number)
    detectors = tuple(arm.checkpoint for arm in arms)
    after = state.next(detectors=detectors, generator=generator, refiner=refiner, pool=pool)
    loop.folder.record_detectors(number, after.detectors, [arm.checkpoint for arm in controls])
    return RoundResult(
        state=after, mined=mined, pooled=pooled, arms=arms, controls=controls, not_trained=lack, guard=guard
    )


def too_small(pool: Sequence[Sample], mixing: MixingConfig) -> str:
    """The reason why a pool is not trained on; empty if it is."""
    if len(pool) >= mixing.min_pool:
        return ""
    return f"the pool holds {counted(len(pool), 'synthetic image')}, fewer than mixing.min_pool ({mixing.min_pool})"


def keep_controls(loop: Loop, number: int, reason: str) -> tuple[Arm, ...]:
    """The controls as the detectors of round ``number``, at no cost.

    On real images alone the same detectors would be trained, since no earlier round had a pool either.
    """
    loop.reporter.warn(f"round {number} trains no detector and keeps the control: {reason}")
    controls = enumerate(loop.trainings.controls(number))
    return tuple(copied(control, seed_place(loop.folder.round(number), seed)) for seed, control in controls)


def train(loop: Loop, state: State, pool: tuple[Sample, ...]) -> tuple[tuple[Arm, ...], Guarded | None]:
    """The detectors of the round after ``state``: the loop's own ones, or those that the guard chooses, if any."""
    config, trainings, number = loop.config, loop.trainings, state.round + 1
    place = loop.folder.round(number)
    own_place = place / "unguarded" if config.guard.folds else place
    own = trainings.arms(own_place, number, mixing=config.mixing, pool=pool, starts=state.detectors)
    if not config.guard.folds:
        return own, None
    guard = guarded(trainings, place, pool, own, trainings.controls(number))
    return guard.arms, guard


def mine(loop: Loop, state: State) -> Mined:
    """Run the current detector on the real training images, and spend the budget on the boxes that it gets wrong.

    With ``mining.detector`` another detector is used, and with cross-fitting the one that was not trained on the image.
    Runs that share candidates mine once, except with ``mining.policy: utility``, which depends on a run's own rounds.
    """
    decides = ("mining", "detector", "seed")
    shared = shared_place("mined", loop.config, decides, [loop.folder.train_records, state.detector])
    if shared is None or loop.config.mining.policy == "utility":
        return _mine(loop, state)
    with exclusive(shared):
        return once(shared / f"{state.round + 1:03d}.json", Mined, lambda: _mine(loop, state))


def _mine(loop: Loop, state: State) -> Mined:
    config, images, trainings = loop.config, loop.data.splits["train"], loop.trainings.for_mining()
    unseen = detect_unseen(trainings) if config.mining.cross_fit else None
    foreign = config.mining.detector is not None and unseen is None
    checkpoint = trainings.control(0).checkpoint if foreign else state.detector
    with loop.reporter.stage("mine", len(images)) as progress:
        seen, cost = unseen or stages.detect(
            images, trainings.config.detector, checkpoint, config.hosting, progress.advance
        )
        instances = [
            instance for image in images for instance in attributes(image, seen[image.id], **config.mining.attribute())
        ]
        shares = mining.difficulty_shares(instances, loop.data.classes)
        beliefs = loop.folder.beliefs(config, state.round + 1, instances)
        taken = mining.select(instances, config.mining, derive_seed(config.seed, "mine", state.round), beliefs)
        num_hard = sum(share.num_hard for share in shares)
        progress.reach(len(images), f"{num_hard} of {counted(len(instances), 'box', 'boxes')} hard, {len(taken)} taken")
    for warning in mining.warnings(shares, config.mining):
        loop.reporter.warn(warning)
    return Mined(instances=taken, found=tuple(instances), shares=shares, cost=cost, beliefs=beliefs)


def fit(loop: Loop, state: State, mined: Mined) -> Fitted | None:
    """The generator, fitted on the real training images if a fit is due; None if it does not learn."""
    config = loop.config
    if not (config.generator.learns and config.fit.is_due(state.round + 1)):
        return state.generator
    known = difficulties(loop.data.splits["train"], mined.found)
    return loop.trainings.fit(
        config.generator, known, number=state.round + 1, detector=state.detector, start=state.generator
    )


def fit_refiner(loop: Loop, state: State) -> Fitted | None:
    """The refiner, fitted on the real training images if a fit is due; None if it does not learn."""
    config = loop.config
    if not (config.refiner.learns and config.fit.is_due(state.round + 1)):
        return state.refiner
    return loop.trainings.fit(
        config.refiner,
        unmined(loop.data.splits["train"]),
        number=state.round + 1,
        detector=state.detector,
        start=state.refiner,
        what="refiner",
    )


def round_sources(loop: Loop, state: State, generator: Fitted | None, refiner: Fitted | None) -> Sources:
    """The files that the actors of this round open."""
    checkpoint = generator.checkpoint if generator else None
    clean = loop.folder.clean_records if loop.data.clean else None
    files = (loop.folder.train_records, state.detector, checkpoint, *([clean] if clean else []))
    shared = shared_place("candidates", loop.config, ("generator", "detector"), files)
    return Sources(
        classes=loop.data.classes,
        real=str(loop.folder.train_records),
        clean=str(clean) if clean else None,
        filter_states=str(loop.folder.filter_states),
        detector=state.detector,
        generator=checkpoint,
        refiner=refiner.checkpoint if refiner else None,
        held_back=held_back(loop.trainings),
        shared=str(shared) if shared else None,
    )


def missing_candidates(loop: Loop, state: State, mined: Mined) -> list[Lineage]:
    """The lineages of the round's candidates, without those that an interrupted start has judged already."""
    number = state.round + 1
    lineages = mining.plan(
        mined.instances,
        copies=loop.config.generation.copies,
        generator=loop.config.generator.kind,
        strategy=loop.config.generator.requested(),
        round_index=number,
        seed=loop.config.seed,
        modes=dict(mined.beliefs.modes),
    )
    done = _judged_ids(loop, number)
    return [lineage for lineage in lineages if lineage.id not in done]


def run_stream(loop: Loop, state: State, kept: stages.Stream) -> Pooled:
    """Run the stages from ``generate`` to ``keep``. The pixels stay in the actors."""
    number = state.round + 1
    num_candidates = len(_judged_ids(loop, number)) + len(kept.rows)
    with loop.reporter.stage("generate and judge", len(kept.rows)) as progress:
        collected = stages.collect(kept, loop.config.hosting, _counting(progress))
    keep_failed(collected.rows, loop.folder.round(number), loop.config.generation.max_failed_share * num_candidates)
    errors = [row["error"] for row in collected.rows if row["error"]]
    samples = loop.folder.judged(number)
    told = [*counts.failures(errors, num_candidates), *counts.warnings(samples)]
    if loop.data.clean:
        clean = {image.id for image in loop.data.clean}
        told += counts.none_clean(samples, clean, loop.config.generator.clean_share)
    for warning in told:
        loop.reporter.warn(warning)
    select(loop, number)
    kept_ids, dropped_ids = (loop.folder.sample_ids(number, fate) for fate in Fate)
    return Pooled(kept=kept_ids, dropped=dropped_ids, cost=collected.cost)


def select(loop: Loop, number: int) -> None:
    """Drop kept pictures of round ``number`` beyond ``generation.keep``. An interrupted selection selects the same."""
    generation, kept = loop.config.generation, loop.folder.samples(number, Fate.KEPT)
    if generation.keep is None:
        return
    found = selection.entrants(
        {one.id: one for one in (*loop.folder.judged(number), *kept)}.values(), generation.select
    )
    chosen = selection.select(found, generation.keep)
    for sample in kept:
        if sample.id not in chosen:
            set_aside(sample, loop.folder.round(number), selection.NOT_SELECTED)
    loop.reporter.say(f"selected {len(chosen)} of {counted(len(found), 'picture')} by {generation.select}")


def _judged_ids(loop: Loop, number: int) -> set[str]:
    return {sample_id for fate in Fate for sample_id in loop.folder.sample_ids(number, fate)}


def _counting(progress: StageProgress) -> stages.OnRow:
    """A callback that counts the kept and dropped candidates."""
    num_by_fate = {"kept": 0, "dropped": 0}

    def count(row: Row) -> None:
        num_by_fate["dropped" if row["dropped"] else "kept"] += 1
        progress.note(f"{num_by_fate['kept']} kept, {num_by_fate['dropped']} dropped")
        progress.advance()

    return count
