"""Seeds and ids: the same everywhere, different for every part."""

import subprocess
import sys

from actors.seeds import derive_id, derive_seed

SEED, ID = 3625792921844955327, "64a2cee77f63717f"


def test_they_are_the_same_in_every_version_and_process():
    """Golden values: to change them is to change every pool that was ever drawn."""
    assert derive_seed(0, 1, "a/b.png", 2) == SEED
    assert derive_id(0, 1, "a/b.png", 2) == ID
    code = 'from actors.seeds import derive_seed; print(derive_seed(0, 1, "a/b.png", 2))'
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})  # noqa: S603 - our own
    assert int(done.stdout) == SEED


def test_every_part_counts_and_so_does_their_order():
    parts = [(1, 2), (2, 1), (1, 2, 0), (12,), ("1", 2), ("12",), (1, "2"), ("a", "b"), ("ab",), ("a", "", "b"), ()]
    assert len({derive_seed(*one) for one in parts}) == len(parts)
    assert len({derive_id(*one) for one in parts}) == len(parts)


def test_ranges():
    seeds = [derive_seed(number) for number in range(2000)]
    assert len(set(seeds)) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # the range is used
    assert all(len(derive_id(number)) == 16 and int(derive_id(number), 16) >= 0 for number in range(100))
