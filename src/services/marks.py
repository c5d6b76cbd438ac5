"""Marks on this machine that outlive a hook.

A mark is no truth about a cluster, only about what this charm did or saw here: that a daemon was
empty when its join began, so that what the join left behind may be cleaned; that something was
wrong or not finished, so that every hook looks whether it still is.
"""

from __future__ import annotations

from pathlib import Path


class Mark:
    """The revision of the grant with which the join of one service was begun."""

    def __init__(self, folder: Path, service: str) -> None:
        self._path = folder / f"joining-{service}"

    def read(self) -> int:
        """The revision, 0 if no join is under way."""
        try:
            return int(self._path.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def set(self, revision: int) -> None:
        """A join with this grant begins now."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.write_text(str(revision))

    def clear(self) -> None:
        """It is finished, or cleaned."""
        self._path.unlink(missing_ok=True)


class Flag:
    """Something about this machine that a later hook has to know: it is, or it is not."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_set(self) -> bool:
        """Whether it is."""
        return self._path.exists()

    def put(self, on: bool) -> None:
        """Whether it is from now on."""
        if not on:
            self._path.unlink(missing_ok=True)
        elif not self.is_set():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.touch()
