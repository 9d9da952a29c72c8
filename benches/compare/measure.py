"""Memory and CPU time of processes, as Linux states them below /proc."""

import os
import platform
import re
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def memory_mb(pid, field):
    """`VmRSS`, the present resident memory, or `VmHWM`, its peak."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+)", status, re.MULTILINE)[1]) / 1024


def peak_mb(pid):
    return memory_mb(pid, "VmHWM")


def resident_mb(pid):
    return memory_mb(pid, "VmRSS")


def forget_peak(pid):
    """The peak counts from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_seconds(pid):
    """User and system time since the process started."""
    # The name of the program, in parentheses, may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def machine():
    processor = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    total = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor[1] if processor else platform.machine(),
        "memory_gb": round(int(total[1]) / 1024**2, 1),
        # Without what its builder called it.
        "kernel": re.match(r"[0-9.]*", platform.release())[0],
    }
