"""The tables of evidence: they show the committed rows, and the script that makes them never mixes configs."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

import evidence
import evidence_tables
import gen2det
import gen2det_tables as tables

from actors.storage import write_record
from loop.ablation.run import claim
from loop.ablation.table import TrialResult
from loop.config import ConfigError

EVIDENCE = gen2det.EVIDENCE
BEGIN, END = evidence_tables.marks("gen2det")
HERE = {"detloop": "abc", "torch": "2", "ultralytics": "8", "cpu": "any", "date": "2026-01-01"}


def results(ap, data="world"):
    """Rows as the script stores them; ``ap`` gives each arm's AP by seed, in points."""
    rows = [
        {"data": data, "arm": arm, "seed": seed, "steps": 800, "ap": points / 100, "ap50": points / 100}
        for arm, by_seed in ap.items()
        for seed, points in enumerate(by_seed)
    ]
    config = evidence.decisive(EVIDENCE.load(data, "runs").base.science())
    return {"runs": {data: {"config": config, "arms": {arm: {} for arm in ap}, "made_with": []}}, "rows": rows}


def trial(arm, seed=0, ap=0.3):
    return TrialResult(arm=arm, seed=seed, steps=800, metrics={"AP": ap, "AP50": 0.5})


def settled(name="world", stored=None):
    """Stored results made ready for a question's rows, and what was said of it."""
    ablation, said = EVIDENCE.load(name, "runs"), []
    stored = stored or {"runs": {}, "rows": []}
    EVIDENCE.settle(stored, name, ablation, said.append)
    return stored, said


@pytest.mark.parametrize("file", EVIDENCE.documents(), ids=lambda file: file.name)
def test_the_documents_show_the_stored_rows(file):
    stored, sections = json.loads(EVIDENCE.results_file.read_text()), EVIDENCE.documents()[file]
    shown = {marks: evidence_tables.between_marks(file.read_text(), marks) for marks in sections}
    assert shown == {marks: section(stored) for marks, section in sections.items()}


def test_the_summary_is_in_the_readme_and_the_tables_are_in_the_docs():
    tables_of = {file.name: list(sections) for file, sections in EVIDENCE.documents().items()}
    assert tables_of == {"evidence.md": ["gen2det"], "README.md": ["gen2det-summary"]}


def test_a_document_without_marks_is_refused():
    with pytest.raises(evidence_tables.MissingMarksError, match="gen2det:begin"):
        evidence_tables.between_marks("# detloop", "gen2det")


def test_the_tables_go_between_the_marks_and_nowhere_else(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\noutdated\n{END}\nafter\n")
    evidence_tables.write_section(readme, "gen2det", tables.section(results({"real": [30, 31]})))
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "outdated" not in text
    assert evidence_tables.between_marks(text, "gen2det") == tables.section(results({"real": [30, 31]}))


@pytest.mark.parametrize(
    ("gains", "text", "verdict"),
    [
        ([2, 3, 4], "+3.0 [+0.5, +5.5]", "above zero"),  # sd 1, three pairs: 4.303 * 1 / sqrt(3) = 2.48
        ([-2, -3, -4], "−3.0 [−5.5, −0.5]", "below zero"),  # noqa: RUF001
        ([0, 1, 2], "+1.0 [−1.5, +3.5]", "undecided: the interval contains zero"),  # noqa: RUF001
        ([2], "+2.0", "undecided: a single seed has no interval"),
    ],
)
def test_the_sentence_follows_from_the_interval(gains, text, verdict):
    real = [30, 40, 35][: len(gains)]
    restore = [before + gain for before, gain in zip(real, gains, strict=True)]
    said = tables.section(results({"real": real, "restore": restore}))
    seeds = "1 seed" if len(gains) == 1 else f"{len(gains)} seeds"
    assert f"- `restore` vs `real`: {text} points AP, {seeds}; {verdict}." in said


def test_differences_are_over_the_seeds_that_both_arms_have():
    rows = results({"real": [30, 30], "restore": [31, 33, 99]})["rows"]
    found = evidence_tables.difference(rows, "restore", "real")
    assert (found.seeds, round(found.mean, 6)) == (2, 0.02)
    assert evidence_tables.difference(rows, "restore", "copy_paste") is None


def test_the_summary_takes_the_seeds_that_all_its_arms_have():
    arms = {"real": [30, 31, 99], "restore": [33, 35], "copy_paste": [32, 34, 10], "real_4x": [40, 41]}
    line = tables.summary(results(arms)).splitlines()[-1]
    assert line.startswith("| Rendered scenes, first set | 2 | 30.5 | +3.5 ")
    assert "+1.0 [+1.0, +1.0]" in line
    assert "Rendered" not in tables.summary(results({"real": [30], "restore": [33]}))


def test_data_efficiency_is_the_share_of_the_gap_that_the_loop_closes():
    arms = {"real": [30, 31, 32], "restore": [33, 35, 34], "real_4x": [40, 41, 42]}
    closes = "`restore` closes 30 % of the gap from `real` to `real_4x` (+3.0 of +10.0 points AP, 3 seeds)"
    assert closes in tables.section(results(arms))


def test_what_a_component_adds_stands_beside_the_paper():
    said = tables.section(results({"sampling": [30, 31, 32], "naive": [28, 29, 30], "unmined": [29], "mined": [30]}))
    assert "| `sampling` vs `naive` | 3 | +2.0 [+2.0, +2.0] | +2.7 |" in said  # 23.49 - 20.75
    assert "| `mined` vs `unmined` | 1 | +1.0 |  |" in said
    assert "`all` vs" not in said


def test_no_share_is_given_of_a_gap_that_is_not_there():
    arms = {"real": [30, 31, 32], "restore": [33, 35, 34], "real_4x": [29, 33, 32]}
    said = tables.section(results(arms))
    assert "% of the gap" not in said
    assert said.count("No share of it is given.") == 1


def test_an_arm_that_has_no_description_goes_by_its_name():
    line = next(line for line in tables.section(results({"real": [30], "odd": [31]})).splitlines() if "odd" in line)
    assert line.startswith("| `odd` | odd | 1 | 31.0 |")


def test_shares_and_copies_have_tables_of_their_own():
    arms = {"real": [30, 31], "restore": [33, 34], "p=0": [30, 31], "p=0.1": [31, 32], "copies=2": [32, 33]}
    said = tables.section(results(arms))
    assert "share p of synthetic images**\n\n| arm | seeds |" in said
    assert re.search(r"^\| `p=0.1` \| 2 \| 31.5 \| 31.5 \| \+1.0 \[\+1.0, \+1.0\] \| \+2.0 ", said, re.MULTILINE)
    assert re.search(r"^\| `copies=2` \| 2 \|", said, re.MULTILINE)
    assert "`p=0`" not in said  # the same training as real
    assert said.count("| p=0: `real` |") == said.count("| copies=0: `real` |") == 1
    assert "gen2det.py p`" in said


@pytest.mark.parametrize("name", gen2det.QUESTIONS)
def test_every_question_loads_over_its_base(name):
    ablation = EVIDENCE.load(name, "runs", seeds=[5, 6])
    assert ablation.config.seeds == (5, 6)
    assert ablation.base.hosting.engine == "inline"
    assert {trial.seed for trial in ablation.trials} == {5, 6}


def test_the_main_questions_ask_what_they_must():
    decisive = {"real", "naive", "all", "restore", "copy_paste", "unmined", "real_4x"}
    assert decisive <= set(EVIDENCE.load("bccd", "runs").arms) <= set(tables.ARMS)
    assert decisive <= set(EVIDENCE.load("world", "runs").arms) <= set(tables.ARMS)
    copies = [evidence.short(arm) for arm in EVIDENCE.load("copies", "runs").arms]
    assert copies == [f"copies={num}" for num in (1, 2, 3, 5, 10)]


@pytest.mark.parametrize("name", ["world", "fresh", "bccd"])
def test_real_4x_has_four_times_the_real_images(name):
    of_arm = {trial.arm: trial.config.data for trial in EVIDENCE.load(name, "runs").trials}
    ours, theirs = (of_arm[arm].world.train if name != "bccd" else of_arm[arm].subset for arm in ("real", "real_4x"))
    assert theirs == 4 * ours


def test_a_run_becomes_one_row_however_often_it_is_taken():
    stored, _ = settled()
    found = [trial("restore"), trial("real", seed=1), trial("real")]
    assert EVIDENCE.merge(stored, "world", found, HERE) == 3
    assert EVIDENCE.merge(stored, "world", found, {**HERE, "date": "2026-01-02"}) == 0
    assert [(row["arm"], row["seed"]) for row in stored["rows"]] == [("real", 0), ("real", 1), ("restore", 0)]
    assert stored["rows"][0] == {"data": "world", "arm": "real", "seed": 0, "steps": 800, "ap": 0.3, "ap50": 0.5}
    assert stored["runs"]["world"]["made_with"] == [HERE]


def test_rows_of_an_arm_that_has_changed_go():
    stored, _ = settled()
    EVIDENCE.merge(stored, "world", [trial("real"), trial("all")], HERE)
    stored["runs"]["world"]["arms"]["all"] = {"mixing.p": 0.9}
    _, said = settled(stored=stored)
    assert said == ["world, arm all: 1 old rows go, the arm has changed"]
    assert [row["arm"] for row in stored["rows"]] == ["real"]


def test_rows_of_another_config_go_whole_data_sets_at_a_time():
    stored, _ = settled("fresh")
    EVIDENCE.merge(stored, "fresh", [trial("real"), trial("mixing.p=0.1")], HERE)
    stored["runs"]["fresh"]["arms"]["p=0.1"] = {"mixing.p": 0.1}
    stored["runs"]["fresh"]["config"]["training"]["batch_size"] = 8
    with pytest.raises(ConfigError, match=r"make those anew first:\n  training.batch_size: 8 -> 16"):
        settled("p", stored)
    _, said = settled("fresh", stored)
    assert said == ["fresh: 2 old rows go, the config has changed:\n  training.batch_size: 8 -> 16"]
    assert stored["rows"] == []


def test_rows_without_rounds_outlive_changes_of_what_only_rounds_have():
    stored, _ = settled()
    EVIDENCE.merge(stored, "world", [trial("real"), trial("real_4x"), trial("all")], HERE)
    stored["runs"]["world"]["config"]["generation"]["copies"] = 5
    assert settled(stored=stored)[1] == ["world: 1 old rows go, the config has changed:\n  generation.copies: 5 -> 20"]
    assert [row["arm"] for row in stored["rows"]] == ["real", "real_4x"]
    stored["runs"]["world"]["config"]["training"]["batch_size"] = 8
    settled(stored=stored)
    assert stored["rows"] == []


def test_a_key_that_is_newer_than_the_rows_has_its_default():
    stored, _ = settled()
    EVIDENCE.merge(stored, "world", [trial("real")], HERE)
    del stored["runs"]["world"]["config"]["training"]["start"]
    assert settled(stored=stored)[1] == []
    assert stored["runs"]["world"]["config"]["training"]["start"] == "scratch"


def test_no_place_of_data_is_stored():
    ablation = EVIDENCE.load("bccd", "runs", data="/somewhere/bccd")
    stored = {"runs": {}, "rows": []}
    EVIDENCE.settle(stored, "bccd", ablation)
    assert "somewhere" not in json.dumps(stored)


def begun(root, *results):
    """The folder of an ablation on the world of which these runs are finished."""
    ablation = EVIDENCE.load("world", str(root))
    claim(ablation)
    for one in results:
        write_record(ablation.folder / "trials" / f"{one.arm}-{one.seed}.json", one)
    return ablation


def test_what_is_finished_is_taken_of_the_seeds_asked_for(tmp_path):
    ablation = begun(tmp_path, trial("real"), trial("all", seed=1))
    assert [one.arm for one in EVIDENCE.finished(ablation, [])] == ["all", "real"]
    assert [one.arm for one in EVIDENCE.finished(ablation, [1])] == ["all"]


def test_a_run_of_another_config_is_not_taken(tmp_path):
    ablation = begun(tmp_path, trial("real"))
    record = ablation.folder / "ablation.json"
    record.write_text(record.read_text().replace('"batch_size": 16,', '"batch_size": 8,'))
    with pytest.raises(ConfigError, match=r"arm real, was run with another config:\n  training.batch_size: 8 -> 16"):
        EVIDENCE.finished(ablation, [])


def test_a_root_without_the_ablation_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no ablation has begun here"):
        EVIDENCE.finished(EVIDENCE.load("world", str(tmp_path)), [])
