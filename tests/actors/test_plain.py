"""Every record of the vocabulary through JSON and back, to the last bit."""

import json
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pytest
from typing_extensions import TypeAliasType

from actors import records
from actors.plain import dumps, from_plain, loads, to_plain
from actors.records import (
    WHOLE_IMAGE,
    Annotation,
    Candidate,
    Detections,
    Difficulty,
    Inspected,
    Instance,
    Judged,
    LabeledImage,
    Lineage,
    Refined,
    Refinement,
    Sample,
    Verdict,
)
from actors.seeds import derive_id

LINEAGE = Lineage(round=1, image_id="a/ü.png", box_indices=(0, 2), generator="copy_paste", seed=2**63 - 1)


def annotation(num_boxes):
    rng = np.random.default_rng(num_boxes)
    return Annotation(
        boxes=(rng.random((num_boxes, 4)) * 300).astype(np.float32),
        labels=rng.integers(0, 9, num_boxes),
        ignore=rng.random(num_boxes) < 0.5,
    )


def detections(num_boxes):
    known = annotation(num_boxes)
    scores = np.sort(np.random.default_rng(9).random(num_boxes).astype(np.float32))[::-1]
    return Detections(boxes=known.boxes, labels=known.labels, scores=scores)


def candidate(num_boxes):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    drawn = np.arange(num_boxes) % 2 == 0
    return Candidate(
        pixels=pixels,
        annotation=annotation(num_boxes),
        drawn=drawn,
        painted=np.full(pixels.shape[:2], -1, np.int16),
        canvas="b.png",
        lineage=LINEAGE,
    )


def every_record(num_boxes):
    verdict = Verdict(filter="blank", box=WHOLE_IMAGE, keep=False, score=0.1, threshold=1 / 3, reason="blank")
    refined = Refined(
        box=0,
        corners=(0.5, 1.0, 4.0, 2.5),
        prompt_iou=0.7,
        seen_before=0.0,
        seen_after=1 / 3,
        confidence=0.5,
        fate="moved",
    )
    inspected = Inspected(candidate=candidate(num_boxes), seen=detections(num_boxes))
    judged = Judged(
        pixels=inspected.candidate.pixels,
        as_drawn=inspected.candidate.pixels,
        annotation=annotation(0),
        proposed=annotation(num_boxes),
        drawn=inspected.candidate.drawn,
        restored=np.zeros(num_boxes, np.bool_),
        seen=inspected.seen,
        verdicts=(verdict,),
        dropped="blank: blank",
        lineage=LINEAGE,
        canvas="b.png",
        examples=("c.png",) * num_boxes,
    )
    image = LabeledImage(id="a", uri="s3://b/a.png", width=5, height=3, annotation=annotation(num_boxes))
    found = Instance(image_id="a", index=1, label=2, difficulty=Difficulty.HARD, best_score=0.25, best_iou=1e-7)
    sample = Sample(
        id=LINEAGE.id,
        uri="kept/x.png",
        sha256="ab",
        as_drawn="as_drawn/x.png",
        width=5,
        height=3,
        annotation=annotation(num_boxes),
        proposed=annotation(num_boxes + 1),
        drawn=np.ones(num_boxes + 1, np.bool_),
        restored=np.arange(num_boxes + 1) == 0,
        seen=detections(num_boxes),
        verdicts=(verdict, replace(verdict, keep=True, reason="")),
        dropped="",
        lineage=LINEAGE,
        canvas="b.png",
        examples=("",) * num_boxes,
        refined=(refined,),
    )
    return [
        annotation(num_boxes),
        detections(num_boxes),
        image,
        found,
        LINEAGE,
        candidate(num_boxes),
        inspected,
        verdict,
        judged,
        Refinement(boxes=annotation(num_boxes).boxes, confidence=detections(num_boxes).scores),
        refined,
        sample,
    ]


def test_no_record_is_left_out():
    kinds = {kind for kind in vars(records).values() if is_dataclass(kind)}
    assert kinds == {type(record) for record in every_record(2)}


@pytest.mark.parametrize("num_boxes", [0, 1, 4])
@pytest.mark.parametrize("position", range(len(every_record(0))))
def test_a_record_comes_back_equal(position, num_boxes):
    record = every_record(num_boxes)[position]
    data = dumps(record)
    back = loads(type(record), data)
    assert_equal(back, record)
    assert dumps(back) == data


def test_float32_comes_back_to_the_last_bit():
    bits = np.random.default_rng(0).integers(0, 2**31, 40_000, np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    boxes = values[: len(values) // 4 * 4].reshape(-1, 4)
    known = Annotation(boxes=boxes, labels=np.zeros(len(boxes), np.int64), ignore=np.zeros(len(boxes), np.bool_))
    assert loads(Annotation, dumps(known)).boxes.tobytes() == boxes.tobytes()


def test_what_was_frozen_is_frozen_again():
    back = loads(Annotation, dumps(annotation(3)))
    with pytest.raises(ValueError, match="read-only"):
        back.boxes[0, 0] = 1


def test_nests_of_records_and_plain_values():
    nest = {"b": (annotation(2),), "a": (annotation(0), annotation(1))}
    back = from_plain(dict[str, tuple[Annotation, ...]], json.loads(dumps(nest)))
    assert back.keys() == nest.keys()
    assert [len(known) for known in back["a"]] == [0, 1]
    assert_equal(back["b"][0], annotation(2))


def test_an_unknown_field_is_an_error():
    plain = to_plain(LINEAGE) | {"colour": "red"}
    with pytest.raises(ValueError, match=r"Lineage: unknown fields \['colour'\]"):
        from_plain(Lineage, plain)


def test_a_missing_field_is_an_error():
    plain = to_plain(LINEAGE)
    for name in ("seed", "strategy"):  # with a default or without
        with pytest.raises(KeyError, match=name):
            from_plain(Lineage, {key: value for key, value in plain.items() if key != name})


def test_an_id_counts_the_strategy_where_it_is_not_the_default():
    assert LINEAGE.id == derive_id(1, "a/ü.png", "(0, 2)", "copy_paste", 2**63 - 1)
    hard = replace(LINEAGE, strategy="hard")
    assert from_plain(Lineage, to_plain(hard)) == hard
    assert hard.id != LINEAGE.id


def test_arrays_of_unequal_length_are_an_error():
    plain = to_plain(annotation(2)) | {"labels": [1]}
    with pytest.raises(ValueError, match="Annotation: fields differ in length"):
        from_plain(Annotation, plain)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_hold_is_an_error(value):
    with pytest.raises(ValueError, match="JSON"):
        dumps({"score": value})


def test_what_has_no_plain_form_is_an_error():
    with pytest.raises(TypeError, match="set has no plain form"):
        to_plain({1, 2})


def assert_equal(back, record):
    """Field by field, arrays by type, shape and bytes."""
    assert type(back) is type(record)
    for field in fields(record):
        ours, theirs = getattr(back, field.name), getattr(record, field.name)
        if isinstance(theirs, np.ndarray):
            assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
        elif is_dataclass(theirs):
            assert_equal(ours, theirs)
        else:
            assert ours == theirs
            assert type(ours) is type(theirs)


@dataclass(frozen=True)
class Aliased:
    values: "Values[np.float32]"


Element = TypeVar("Element", bound=np.generic)
Values = TypeAliasType("Values", np.ndarray[tuple[Any, ...], np.dtype[Element]], type_params=(Element,))


def test_an_array_is_restored_where_its_type_is_an_alias():
    again = loads(Aliased, dumps(Aliased(values=np.array([0.5, 1.0], np.float32))))
    assert again.values.dtype == np.float32
    assert again.values.tolist() == [0.5, 1.0]
