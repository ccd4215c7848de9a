"""Reading on in files of lines that others append to."""

from __future__ import annotations

from pathlib import Path


class GrowingFiles:
    """Where each file was read up to; only whole lines are handed out."""

    def __init__(self) -> None:
        self._read: dict[Path, int] = {}

    def skip(self, path: Path) -> None:
        """Pass over what is there by now."""
        self._read[path] = path.stat().st_size

    def new_lines(self, path: Path) -> list[bytes]:
        """The whole lines since the last call; none where the file cannot be read."""
        try:
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._read[path] = self._read.get(path, 0) + len(whole)
        return whole.splitlines()
