"""Put a charm's files in place, keeping what the charm itself made there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path


def install_charm(source: Path, target: Path, manifest: Path) -> None:
    """Copy a charm over its predecessor; files only the predecessor had are removed."""
    new = sorted(
        str(Path(folder, name).relative_to(source))
        for folder, _, names in os.walk(source)
        for name in names
    )
    old: list[str] = json.loads(manifest.read_text()) if manifest.exists() else []
    target.mkdir(parents=True, exist_ok=True)
    for name in set(old) - set(new):
        (target / name).unlink(missing_ok=True)
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, copy_function=_copy)
    manifest.write_text(json.dumps(new))


def _copy(source: str, target: str) -> str:
    """Replace rather than overwrite: a running hook keeps the file it has open."""
    if os.path.lexists(target):
        os.unlink(target)
    return str(shutil.copy2(source, target))
