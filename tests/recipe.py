"""``prepare`` of docs/use.md, as a reader copies it: pictures for exported files."""

import re
import textwrap
from pathlib import Path
from typing import Any

_PAGE = (Path(__file__).parents[1] / "docs/use.md").read_text()
_CODE = re.search(r"^    import cv2\n(?:    .*\n|\n)+", _PAGE, flags=re.MULTILINE)
assert _CODE
_NAMES: dict[str, Any] = {}
exec(textwrap.dedent(_CODE.group()), _NAMES)  # noqa: S102 - our own documentation

prepare = _NAMES["prepare"]
