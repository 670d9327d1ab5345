"""How deep a JSON text is nested, found before anybody decodes it.

A text of a million brackets is small, and whoever decodes or prints it recursively runs out of stack. Few brackets
cannot nest deeply, so that ordinary requests pay for counting them and no more.
"""

from __future__ import annotations

import re
from itertools import accumulate

from tailrace_serving.domain.refusal import Refused

MAX_DEPTH = 64

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(code for code in range(256) if code not in b"[]{}")
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def depth(text: bytes) -> int:
    """The deepest nesting of arrays and objects in a JSON text; brackets inside strings do not count.

    >>> depth(b'{"a": [[1], "[[["]}')
    3
    """
    brackets = _STRING.sub(b"", text).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0)


def check_depth(text: bytes) -> None:
    """Refuse JSON that is nested deeper than `MAX_DEPTH`."""
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and (found := depth(text)) > MAX_DEPTH:
        raise Refused("malformed", f"the request body is nested {found} levels deep, expected at most {MAX_DEPTH}")
