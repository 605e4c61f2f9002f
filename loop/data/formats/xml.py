"""Reading of XML files that somebody else wrote."""

import re
from xml.etree import ElementTree as ET

from upath import UPath

from actors.storage import is_local

_HEAD_BYTES = 4096  # a prolog and comments are shorter
_MULTI_BYTE = {
    **dict.fromkeys(("gb2312", "gbk", "gb18030"), "gb18030"),
    **{name: name for name in ("big5", "euc-jp", "euc-kr", "shift-jis")},
}


def opens_with(tag: str, file: UPath) -> bool:
    """True if the first element of a file is ``tag``, as far as its head shows."""
    if is_local(file) and not file.is_file():
        return False
    with file.open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
    first = re.search(rb"<([A-Za-z_][\w:.-]*)", re.sub(rb"<!--.*?-->", b"", head, flags=re.DOTALL))
    return first is not None and first.group(1) == tag.encode()


def parse(data: bytes) -> ET.Element:
    """The root element of an XML file. Raises ValueError if it is broken or contains a DOCTYPE."""
    parser = ET.XMLParser(target=_NoDoctype())  # noqa: S314 - see _NoDoctype
    try:
        parser.feed(_decoded(data))
        element: ET.Element = parser.close()
    except (ET.ParseError, LookupError) as error:
        raise ValueError(f"not readable as XML: {error}") from None
    return element


def plain_tags(element: ET.Element) -> ET.Element:
    """``element`` with all tags in lower case and without namespaces."""
    for one in element.iter():
        one.tag = one.tag.rpartition("}")[2].lower()
    return element


def _decoded(data: bytes) -> bytes | str:
    """Text, if the XML declaration names an encoding of several bytes a character: the parser knows none of these."""
    declared = re.match(rb"""\s*<\?xml[^>]*encoding=["']([\w.-]+)["']""", data)
    codec = _MULTI_BYTE.get(declared.group(1).decode().lower().replace("_", "-")) if declared else None
    return data.decode(codec) if codec else data


class _NoDoctype(ET.TreeBuilder):
    """Rejects a DOCTYPE before any entity is defined: entities can expand to gigabytes or read other files."""

    def doctype(self, name: str, *_: str | None) -> None:
        raise ValueError(f"contains a DOCTYPE ({name}), which is not allowed; remove it")
