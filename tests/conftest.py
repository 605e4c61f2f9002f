"""What the tests share: one thread each, and the folder of real data, where there is one."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder named by DETLOOP_DATA, which holds ``bccd/`` and ``deeppcb/``; tests skip without it."""
    folder = os.environ.get("DETLOOP_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set DETLOOP_DATA to a folder with bccd/ and deeppcb/ to run this test")
    return Path(folder)
