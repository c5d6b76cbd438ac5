"""Print documents as JSON, YAML or tables."""

from __future__ import annotations

import json
import sys
from typing import Any


def document(value: Any, style: str) -> None:
    """A document as `--format json` or `yaml` prints it."""
    if style == "json":
        print(json.dumps(value))
    else:
        import yaml

        sys.stdout.write(yaml.safe_dump(value, default_flow_style=False, sort_keys=False))


def table(rows: list[list[Any]]) -> None:
    """Columns two spaces apart, no trailing blanks."""
    if not rows:
        return
    text = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in text) for i in range(len(text[0]))]
    for row in text:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


def note(message: str) -> None:
    """Progress, which goes to stderr so that stdout stays parseable."""
    print(message, file=sys.stderr)
