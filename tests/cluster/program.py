"""scimtail as a program: `run --once`, and instances of the service, followed by their logs."""

import json
import os
from collections import Counter
from datetime import datetime
from pathlib import Path

from processes import ROOT, Failed, Process, run

TOKEN_VARIABLE = "CLUSTER_TOKEN"
# An instance ends after its commit, and aborts what is open; a broker may be slow.
STOP_SECONDS_MAX = 60
# A wait of scimtail for a broker that does not answer has its own bounds below this.
ONCE_SECONDS_MAX = 180
# It asks the registry a few questions about each topic.
SCHEMAS_SECONDS_MAX = 60
# It reads the topic `syncs`.
STATUS_SECONDS_MAX = 60
LINES_SHOWN = 6


def binary():
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    path = Path(os.environ.get("SCIMTAIL") or target / "debug/scimtail").absolute()
    if not path.exists():
        raise Failed(
            f"{path} is missing; → build it with `cargo build`, or name another program in SCIMTAIL"
        )
    return path


def command(file, *arguments):
    return [binary(), "--config", file, "--log-format", "json", *arguments]


def once(name, file, directory, token):
    """`run --once`; returns the exit code, and what it said of accounts that did not complete."""
    # In detail, because the reason of a failure may be one that does not come again.
    detailed = command(file, "--log-level", "debug", "run", "--once")
    process = Process(name, detailed, directory, **{TOKEN_VARIABLE: token})
    said = process.finish(ONCE_SECONDS_MAX, codes=range(-255, 256))
    code = process.supervisor.returncode
    if code == 0:
        return code, ""
    # Log lines are JSON, messages are not.
    log = process.log.read_text(errors="replace").splitlines()
    done = (" completed ", " baseline ")
    lines = [line for line in said.splitlines() if not any(word in line for word in done)]
    lines += [line for line in log if not line.startswith("{")]
    return code, "\n    ".join(lines[-LINES_SHOWN:]) + f"\n    log: {process.log}"


def schemas_check(file, directory, token):
    """What `schemas --check` prints, which has to end with 0."""
    asked = command(file, "schemas", "--check")
    return run("schemas", asked, directory, SCHEMAS_SECONDS_MAX, **{TOKEN_VARIABLE: token})


def run_status(file, directory):
    """`scimtail status`, which ends with another code than 0 if an account needs a person. Returns its last line."""
    said = run("status", command(file, "status"), directory, STATUS_SECONDS_MAX)
    return said.strip().splitlines()[-1]


class Instance:
    """A running service."""

    def __init__(self, name, file, directory, token):
        self.name = name
        self.process = Process(name, command(file, "run"), directory, **{TOKEN_VARIABLE: token})
        self.read_to = 0
        self.rest = b""
        # By account, when its syncs completed: seconds since 1970.
        self.completed = {}
        # What was said at level WARN and ERROR, and how often.
        self.warnings = Counter()
        self.errors = Counter()
        # Lines that are no log lines: a panic, for one.
        self.strange = []
        self.assigned = False

    def runs(self):
        return self.process.supervisor.poll() is None

    def follow(self):
        """Reads the new lines of the log."""
        with self.process.log.open("rb") as log:
            log.seek(self.read_to)
            new = log.read()
        self.read_to += len(new)
        *lines, self.rest = (self.rest + new).split(b"\n")
        for line in filter(None, lines):
            try:
                self.take(json.loads(line))
            except ValueError:
                self.strange.append(line.decode(errors="replace"))

    def take(self, line):
        message = line["message"]
        if message == "sync completed":
            time = datetime.fromisoformat(line["timestamp"]).timestamp()
            self.completed.setdefault(line["account"], []).append(time)
        elif message == "shards assigned":
            self.assigned = True
        if line["level"] in ("WARN", "ERROR"):
            kept = self.warnings if line["level"] == "WARN" else self.errors
            code, reason = line.get("code"), line.get("reason")
            kept[": ".join(str(part) for part in (message, code, reason) if part)] += 1

    def stop(self):
        """SIGTERM; it has to end well."""
        self.process.supervisor.stdin.close()
        self.process.finish(STOP_SECONDS_MAX)
        self.follow()

    def kill(self):
        """SIGKILL."""
        self.process.kill()
        self.follow()
