"""Seeds and ids derived from lineage, so that equal configs give equal pictures in any process."""

import hashlib

Part = int | str


def _digest(parts: tuple[Part, ...]) -> bytes:
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def derive_seed(*parts: Part) -> int:
    """A seed in [0, 2**63) that depends on every part and on their order, stable across processes and machines."""
    return int.from_bytes(_digest(parts)[:8], "big") >> 1


def derive_id(*parts: Part) -> str:
    """A 16-digit hex id that depends on every part and on their order, stable across processes and machines."""
    return _digest(parts)[:8].hex()
