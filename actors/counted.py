"""Numbers with their nouns in messages."""


def counted(number: int | str, one: str, several: str = "") -> str:
    """A number and what it counts: ``1 image``, ``2 images``; ``several`` is the plural if it is not ``one`` and an s.

    A number that is not whole is given as it is to be written.
    """
    return f"{number} {one if str(number) == '1' else several or f'{one}s'}"
