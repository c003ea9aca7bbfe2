"""A mounted Secret or ConfigMap, as the kubelet writes it: it replaces one link on a change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class MountedDirectory:
    """Each file is a link through the link ..data (pkg/volume/util/atomic_writer.go)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._versions = 0
        path.mkdir(exist_ok=True)

    def publish(self, files: Mapping[str, bytes]) -> None:
        """Put these files in the place of all that there are."""
        self._versions += 1
        version = self.path / f"..version{self._versions}"
        version.mkdir()
        for name, content in files.items():
            (version / name).write_bytes(content)
        new = self.path / "..data_tmp"
        new.symlink_to(version.name)
        new.replace(self.path / "..data")
        for link in self.path.iterdir():
            if not link.name.startswith("..") and link.name not in files:
                link.unlink()
        for name in files:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
