"""Memory, threads and descriptors of processes, as Linux states them below /proc."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Sample:
    """`at`: seconds since the soak began. `calm`: all instances run, each has its share, and nothing is disturbed."""

    at: float
    name: str
    round: int
    calm: bool
    memory_mb: float
    anonymous_mb: float
    threads: int
    descriptors: int
    cpu_s: float


def sample(pid, name, at, round, calm):
    """None if the process has ended."""
    process = Path(f"/proc/{pid}")
    try:
        status = (process / "status").read_text()
        # The name of the program, in parentheses, may hold spaces.
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        descriptors = len(os.listdir(process / "fd"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    numbers = {key: int(n) for key, n in re.findall(r"^(\w+):\s+(\d+)", status, re.MULTILINE)}
    if "VmRSS" not in numbers:
        # A zombie has no memory.
        return None
    user, system = int(fields[11]), int(fields[12])
    return Sample(
        at,
        name,
        round,
        calm,
        numbers["VmRSS"] / 1024,
        numbers["RssAnon"] / 1024,
        numbers["Threads"],
        descriptors,
        (user + system) / TICKS,
    )


class Measurements:
    """Samples of all instances that run."""

    def __init__(self, fleet, began):
        self.fleet, self.began = fleet, began
        self.samples = []
        self.round = 0

    def take(self, calm=False):
        for member in list(self.fleet.running.values()):
            at = time.monotonic() - self.began
            if found := sample(member.pid, member.name, at, self.round, calm):
                self.samples.append(found)

    def newest(self, name):
        return next((s for s in reversed(self.samples) if s.name == name), None)
