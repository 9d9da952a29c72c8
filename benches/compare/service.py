"""scimtail as a user runs it: the release binary, a configuration file, and what it logs."""

import json
import os
import secrets
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import measure
import vendor as vendors
from processes import Failed

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 60
COMMAND_SECONDS_MAX = 120
LOOK_SECONDS = 0.005
LINES_SHOWN = 10
# Nothing but what the harness asks for happens.
INTERVAL = "12h"
# Messages after which waiting for a sync is in vain.
BAD = ("sync failed", "sync held", "account stopped", "acquisition ended", "shard not acquired")

CONFIGURATION = """
[kafka]
brokers = ["{bootstrap}"]
topic_prefix = "{prefix}"
partitions = 1
{kafka}[registry]
url = "{registry}"
[defaults]
interval = "{interval}"
baseline = "{baseline}"
[defaults.limits]
max_principals = 4000000
"""
ACCOUNT = """
[[account]]
name = "{name}"
provider = "generic"
base_url = "{base_url}"
token_env = "{token}"
[account.profile]
page_size = {page}
"""


@dataclass
class Setup:
    """A prefix with its configuration file, and the binary that reads it."""

    binary: Path
    directory: Path
    prefix: str
    file: Path
    accounts: list


@dataclass
class Service:
    """A running process; times are nanoseconds since 1970."""

    process: subprocess.Popen
    log: Path
    started: int
    read_to: int = 0
    rest: bytes = b""
    lines: list = field(default_factory=list)

    @property
    def pid(self):
        return self.process.pid


def prepared(stage, binary, vendor, *, accounts=("bench",), baseline="state", profile="", kafka=""):
    """A fresh prefix whose topics and schemas exist, as they do at any start but the very first.
    `profile` and `kafka`: more lines of each account's profile and of [kafka]."""
    prefix = f"compare-{secrets.token_hex(5)}"
    directory = stage.work / prefix
    directory.mkdir()
    text = CONFIGURATION.format(
        bootstrap=stage.bootstrap,
        prefix=prefix,
        registry=stage.registry,
        interval=INTERVAL,
        baseline=baseline,
        kafka=kafka,
    )
    for name in accounts:
        text += ACCOUNT.format(
            name=name,
            base_url=vendor.base_url,
            token=vendors.TOKEN_VARIABLE,
            page=vendor.size.page,
        )
        text += profile
    file = directory / "scimtail.toml"
    file.write_text(text)
    setup = Setup(binary, directory, prefix, file, list(accounts))
    command(setup, "topics", "--create")
    command(setup, "schemas", "--register")
    return setup


def environment():
    # The proxy of the machine, if any, is not for a server on loopback.
    return os.environ | {vendors.TOKEN_VARIABLE: vendors.TOKEN, "NO_PROXY": "127.0.0.1"}


def command(setup, *arguments):
    """Runs a command of scimtail to its end and returns what it printed."""
    done = subprocess.run(
        [setup.binary, "--config", setup.file, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        stdin=subprocess.DEVNULL,
        timeout=COMMAND_SECONDS_MAX,
    )
    if done.returncode != 0:
        words = " ".join(map(str, arguments))
        raise Failed(f"scimtail {words} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def start(setup):
    log = setup.directory / f"service-{secrets.token_hex(3)}.log"
    line = [setup.binary, "--config", setup.file, "--log-format", "json", "run"]
    with log.open("wb") as errors:
        started = time.time_ns()
        process = subprocess.Popen(
            vendors.bound(line),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment(),
            cwd=setup.directory,
        )
    return Service(process, log, started)


@contextmanager
def running(setup):
    """The service, until the end of the block."""
    service = start(setup)
    try:
        yield service
        stop(service)
    finally:
        kill(service)


def stop(service):
    """SIGTERM; the service has to end well."""
    service.process.send_signal(signal.SIGTERM)
    code = service.process.wait(STOP_SECONDS_MAX)
    if code != 0:
        raise Failed(f"scimtail ended with {code} after SIGTERM.{end_of_log(service)}")


def kill(service):
    service.process.kill()
    service.process.wait()


def follow(service):
    """Reads the new lines of the log."""
    with service.log.open("rb") as log:
        log.seek(service.read_to)
        new = log.read()
    service.read_to += len(new)
    *lines, service.rest = (service.rest + new).split(b"\n")
    for line in filter(None, lines):
        try:
            service.lines.append(json.loads(line))
        except ValueError:
            raise Failed(f"scimtail printed: {line.decode(errors='replace')}") from None


def wait_for(service, message, count, seconds_max, since=0):
    """Waits for `count` lines with the message, behind the first `since`. Returns the times."""
    deadline = time.monotonic() + seconds_max
    while True:
        follow(service)
        lines = service.lines[since:]
        found = [line for line in lines if line["message"] == message]
        if len(found) >= count:
            return [nanoseconds(line) for line in found]
        bad = [line for line in lines if line["message"].startswith(BAD)]
        if bad:
            raise Failed(f"{bad[0]['message']}: {bad[0].get('reason')}")
        if service.process.poll() is not None:
            raise Failed(f"scimtail ended with {service.process.returncode}.{end_of_log(service)}")
        if time.monotonic() > deadline:
            raise Failed(
                f"scimtail said `{message}` {len(found)} of {count} times in {seconds_max} s."
                f"{end_of_log(service)}"
            )
        time.sleep(LOOK_SECONDS)


def nanoseconds(line):
    return round(datetime.fromisoformat(line["timestamp"]).timestamp() * 1_000_000) * 1_000


def end_of_log(service):
    lines = service.log.read_text(errors="replace").splitlines()
    return "\n  " + "\n  ".join(lines[-LINES_SHOWN:])


def mark(service, vendor):
    """What `finished` counts from: statistics, lines of the log and CPU time."""
    vendors.reset(vendor)
    follow(service)
    return len(service.lines), measure.cpu_seconds(service.pid)


def finished(service, vendor, marked, count, seconds_max):
    """Waits for the end of so many syncs. Returns seconds of wall clock and of CPU. The clock runs
    from the first request at the load server to the line that says the last sync is committed."""
    since, cpu = marked
    ends = wait_for(service, "sync completed", count, seconds_max, since)
    cpu = measure.cpu_seconds(service.pid) - cpu
    first = vendors.statistics(vendor)["first_request"]
    return (max(ends) - first) / 1e9, cpu


def poll(setup, service, vendor, seconds_max):
    """Asks for a sync and waits for its end. Returns as `finished`."""
    marked = mark(service, vendor)
    command(setup, "poll", setup.accounts[0])
    return finished(service, vendor, marked, 1, seconds_max)
