"""Selection of the pictures that join the pool, worked out by hand, and a round that selects by utility."""

import json
from collections import Counter
from io import StringIO

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console
from upath import UPath

from actors.images import read
from actors.records import WHOLE_IMAGE, Annotation, Detections, Lineage, Sample, Verdict
from actors.storage import read_record
from loop.config import LoopConfig
from loop.driver import run
from loop.keep import Fate
from loop.progress import Reporter
from loop.selection import NOT_SELECTED, Entrant, entrants, select
from loop.state import RunFolder


def entrant(name, score, label=0, origins=()):
    return Entrant(id=name, score=score, label=label, origins=origins)


def test_the_best_are_selected_and_all_if_there_are_few():
    found = [entrant(name, score) for name, score in zip("abcd", (0.1, 0.4, -0.2, 0.3), strict=True)]
    assert select(found, 2) == {"b", "d"}
    assert select(found, 4) == select(found, 9) == set("abcd")


def test_each_class_keeps_its_share():
    found = [entrant(f"a{n}", 10.0 + n, label=0) for n in range(6)] + [entrant(f"b{n}", n, label=1) for n in range(3)]
    assert select(found, 3) == {"a5", "a4", "b2"}
    assert Counter(name[0] for name in select(found, 4)) == {"a": 3, "b": 1}  # 2.67 and 1.33


@pytest.mark.parametrize(("sizes", "number"), [((1, 3), 2), ((1, 1, 8), 9), ((2, 2), 3), ((5,), 3)])
def test_a_class_of_which_all_pictures_are_taken_ends_its_turns(sizes, number):
    found = [
        entrant(f"{label}-{n}", float(n), label, origins=("same",))
        for label, size in enumerate(sizes)
        for n in range(size)
    ]
    assert len(select(found, number)) == number


def test_a_canvas_is_not_used_again_before_the_others():
    found = [
        *(entrant(f"easy{n}", 9.0 - n, origins=("easy", f"source{n}")) for n in range(3)),
        entrant("second", 1.0, origins=("other", "source9")),
        entrant("third", 0.5, origins=("last", "source9")),  # the source of "second"
    ]
    assert select(found, 2) == {"easy0", "second"}
    assert select(found, 3) == {"easy0", "second", "easy1"}  # the second turn begins with the best that is left


def sample(name, labels, scores, dropped="", by="utility"):
    num = len(labels)
    boxes = Annotation(
        boxes=np.tile(np.float32([0, 0, 4, 4]), (num, 1)),
        labels=np.array(labels, np.int64),
        ignore=np.zeros(num, np.bool_),
    )
    verdicts = [
        Verdict(filter=by, box=WHOLE_IMAGE, keep=True, score=score, threshold=0.0, reason="") for score in scores
    ]
    return Sample(
        id=name,
        uri="",
        sha256="",
        as_drawn="",
        width=8,
        height=8,
        annotation=boxes,
        proposed=boxes,
        drawn=np.arange(num) > 0,  # the first box is the canvas's own
        restored=np.zeros(num, np.bool_),
        seen=Detections.empty(),
        verdicts=tuple(verdicts),
        dropped=dropped,
        lineage=Lineage(round=1, image_id="source", box_indices=(0,), generator="g", seed=0),
        canvas="canvas",
    )


def test_entrants_are_what_the_filters_kept_with_mean_scores_and_the_rarest_drawn_class():
    samples = [
        sample("a", (2, 0), (0.5, 1.5)),
        sample("b", (2, 0, 1), ()),  # not judged by the filter
        sample("c", (2, 0), (9.0,), dropped="blank: blank"),
        sample("d", (2, 0), (3.0,), dropped=NOT_SELECTED),  # by an interrupted selection
    ]
    found = {one.id: one for one in entrants(samples, "utility")}
    assert {name: (one.score, one.label) for name, one in found.items()} == {
        "a": (1.0, 0),
        "b": (-np.inf, 1),
        "d": (3.0, 0),
    }
    assert found["a"].origins == ("canvas", "source")
    assert entrants(samples, "random") == entrants(samples, "random")


def tree(easy_config, root, **generation):
    filters = [{"kind": "agreement", "score_threshold": 0.001, "iou_threshold": 0.0}]
    filters.append({"kind": "utility", "folds": 2, "min_utility": None})
    training = {**easy_config["training"], "steps": 4, "epoch_steps": 2}
    plain = {**easy_config, "root": str(root), "rounds": 1, "filters": filters, "training": training}
    return {**plain, "generation": {"copies": 3, **generation}, "generator": {"kind": "copy_paste"}}


def test_a_selection_that_cannot_work_is_refused(easy_config, tmp_path):
    with pytest.raises(ValidationError, match=r"generation\.select: aesthetic is none of: random, agreement, utility"):
        LoopConfig.model_validate(tree(easy_config, tmp_path, keep=3, select="aesthetic"))
    with pytest.raises(ValidationError, match=r"generation\.keep: 3 in 1 round is a pool of 3 pictures at most, .*5"):
        LoopConfig.model_validate(tree(easy_config, tmp_path, keep=3))
    with pytest.raises(ValidationError, match=r"generation\.select: utility needs generation\.keep"):
        LoopConfig.model_validate(tree(easy_config, tmp_path, select="utility"))


@pytest.mark.slow
def test_a_round_keeps_the_most_useful_pictures_and_goes_on_after_an_interruption(easy_config, tmp_path):
    config = LoopConfig.model_validate(tree(easy_config, tmp_path, keep=6, select="utility"))
    said = StringIO()
    folder = RunFolder(run(config, Reporter(Console(file=said))))
    kept, dropped = (folder.samples(1, fate) for fate in Fate)
    aside = [one for one in dropped if one.dropped == NOT_SELECTED]
    assert len(kept) == 6
    assert f"selected 6 of {6 + len(aside)} pictures by utility" in said.getvalue()
    assert all(read(one.uri).shape == (one.height, one.width, 3) for one in aside)
    assert not {file.stem for file in UPath(folder.round(1) / "kept").iterdir()} & {one.id for one in aside}
    chosen = select(entrants((*kept, *aside), "utility"), 6)
    assert chosen == {one.id for one in kept}
    values = [verdict.score for one in (*kept, *aside) for verdict in one.verdicts if verdict.filter == "utility"]
    assert len(values) == 6 + len(aside)
    assert len(set(values)) > 1
    _undo(folder, aside[0].id)
    run(config, Reporter(Console(file=StringIO())))
    assert folder.sample_ids(1, Fate.KEPT) == tuple(sorted(chosen))
    assert folder.sample_ids(1, Fate.DROPPED) == tuple(sorted(one.id for one in dropped))


def _undo(folder, sample_id):
    """As if the process had died after it wrote a dropped sample, and before it deleted the kept one."""
    place = folder.round(1)
    for name in ("pool.json", "round.json"):
        (place / name).unlink()
    record = read_record(place / "dropped" / f"{sample_id}.json", dict)
    record |= {"uri": f"kept/{sample_id}.png", "as_drawn": f"kept/{sample_id}.png", "dropped": ""}
    (place / "kept" / f"{sample_id}.json").write_text(json.dumps(record))
    (place / "kept" / f"{sample_id}.png").write_bytes((place / "dropped" / f"{sample_id}.png").read_bytes())
