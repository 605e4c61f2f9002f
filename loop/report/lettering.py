"""Names in any script on plots: by fonts of this machine that have their letters, else by escapes."""

from functools import cache, lru_cache

_FIRST = "DejaVu Sans"  # comes with matplotlib and covers most alphabets
_PLACEHOLDERS = "Last Resort"  # a font that draws any letter as a frame


@lru_cache(maxsize=1024)
def legible(text: str) -> tuple[str, tuple[str, ...]]:
    r"""The text as it can be drawn, in one line, and the font families for it.

    A letter that no font has, such as a Chinese one on a machine without such fonts, becomes an escape such as
    ``\u732b``.
    """
    from matplotlib.font_manager import fontManager

    text = " ".join(text.split())
    families, missing = [_FIRST], set(map(ord, text)) - _letters(fontManager.findfont(_FIRST))
    for font in fontManager.ttflist:
        if missing and not font.name.startswith(_PLACEHOLDERS) and missing & _letters(font.fname):
            families.append(font.name)
            missing -= _letters(font.fname)
    return "".join(_escaped(letter) if ord(letter) in missing else letter for letter in text), tuple(families)


def _escaped(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode()


@cache
def _letters(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(file).get_charmap())
