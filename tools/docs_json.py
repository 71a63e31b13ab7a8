"""JSON that can be read: what fits on a line is on one."""

from __future__ import annotations

import json
from typing import Any

_WIDTH = 240


def written(value: Any) -> str:
    """The text of a file."""
    return _written(value, "") + "\n"


def _written(value: Any, indent: str) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(indent) + len(flat) <= _WIDTH:
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(name)}: {_written(one, inner)}" for name, one in value.items()]
        opening, closing = "{", "}"
    else:
        lines = [f"{inner}{_written(one, inner)}" for one in value]
        opening, closing = "[", "]"
    return f"{opening}\n" + ",\n".join(lines) + f"\n{indent}{closing}"
