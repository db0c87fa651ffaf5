"""Who holds a port: for the message that says why we cannot listen there. Linux only; elsewhere nobody is named."""

from __future__ import annotations

import os
from pathlib import Path

from coulee.server.console import escaped


def holder_of(port: int) -> str | None:
    """`python3 (pid 4242)`, for the process that listens on a TCP port, where that can be seen."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            descriptors = list((process / "fd").iterdir())
        except OSError:
            continue  # not ours to look at, or gone
        for descriptor in descriptors:
            try:
                if os.readlink(descriptor) in inodes:
                    return f"{escaped((process / 'comm').read_text(errors='replace').strip())} (pid {process.name})"
            except OSError:
                continue
    return None


def _listening_inodes(port: int) -> list[str]:
    """The inodes of the sockets that listen on a port, from the kernel's tables."""
    found: list[str] = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                found.append(fields[9])
    return found
