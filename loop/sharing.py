"""What runs below one root share, besides controls: mined instances and candidates, by all that decides them."""

import hashlib
from collections.abc import Sequence

from upath import UPath

from loop.config import LoopConfig


def shared_place(
    kind: str, config: LoopConfig, sections: Sequence[str], files: Sequence[str | UPath | None]
) -> UPath | None:
    """The folder of ``kind`` below the root for what these sections of ``config`` and these files' bytes decide.

    None where ``config`` does not share.
    """
    if not config.hosting.share_candidates:
        return None
    parts = [config.fingerprint(*sections)]
    parts += [hashlib.sha256(UPath(file).read_bytes()).hexdigest() if file else "" for file in files]
    return UPath(config.root) / kind / hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
