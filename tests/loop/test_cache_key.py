"""Shared candidates are keyed by all that they are drawn from."""

from types import SimpleNamespace

from upath import UPath

from loop.config import LoopConfig
from loop.round import round_sources
from loop.state import RunFolder


def test_shared_candidates_are_those_of_the_same_clean_images(easy_config, tmp_path):
    hosting = {"engine": "inline", "share_candidates": True}
    config = LoopConfig.model_validate({**easy_config, "root": str(tmp_path), "hosting": hosting})
    folder, detector = RunFolder(UPath(tmp_path / "easy")), tmp_path / "detector"
    folder.path.mkdir()
    for file in (folder.train_records, detector):
        file.write_bytes(b"1")
    state = SimpleNamespace(detector=str(detector))

    def shared(clean: bytes) -> tuple[str | None, str | None]:
        folder.clean_records.write_bytes(clean)
        data = SimpleNamespace(classes=("blue", "red"), clean=(clean,) if clean else ())
        trainings = SimpleNamespace(config=config)
        loop = SimpleNamespace(config=config, folder=folder, data=data, trainings=trainings)
        sources = round_sources(loop, state, None, None)
        return sources.clean, sources.shared

    none, first, again, other = (shared(clean) for clean in (b"", b"a", b"a", b"b"))
    assert none[0] is None
    assert first[0] == str(folder.clean_records)
    assert first == again
    assert len({none[1], first[1], other[1]}) == 3
