"""Processes that end when this one does, however it ends, and files that are fetched and built once."""

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Everything fetched, built and written goes here.
CACHE = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve() / "readers"

STOP_SECONDS_MAX = 10
POLL_SECONDS = 0.05
LOG_LINES_SHOWN = 30

# Runs a command until it ends or until standard input closes: the kernel closes that when the
# process that holds the other end is gone, be it by SIGKILL.
SUPERVISOR = """
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
{ cat <&3 >/dev/null; kill -TERM $child; } 2>/dev/null &
watcher=$!
exec 3<&-
wait $child; code=$?
kill $watcher 2>/dev/null
exit $code
"""


class Failed(Exception):
    """A failure, in words for people."""


class Process:
    """A running command; its output goes to a file."""

    def __init__(self, name, command, directory, **environment):
        self.name = name
        self.log = directory / f"{name}.log"
        self.out = directory / f"{name}.out"
        with self.log.open("ab") as log, self.out.open("wb") as out:
            self.supervisor = subprocess.Popen(
                ["sh", "-c", SUPERVISOR, "supervisor", *map(str, command)],
                cwd=directory,
                env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | environment,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=log,
                # A separate group: Ctrl-C reaches only us, and all of it can be ended.
                start_new_session=True,
            )

    def wait_until(self, ready, seconds_max):
        """Wait until `ready()` holds, for which the process is needed."""
        deadline = time.monotonic() + seconds_max
        while not ready():
            if self.supervisor.poll() is not None:
                raise Failed(
                    f"{self.name} ended with {self.supervisor.returncode}.{self.end_of_log()}"
                )
            if time.monotonic() > deadline:
                raise Failed(f"{self.name} was not ready after {seconds_max} s.{self.end_of_log()}")
            time.sleep(POLL_SECONDS)

    def finish(self, seconds_max, codes=(0,)):
        """Wait for its end and return what it printed."""
        try:
            code = self.supervisor.wait(seconds_max)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(
                f"{self.name} still ran after {seconds_max} s.{self.end_of_log()}"
            ) from None
        self.supervisor.stdin.close()
        if code not in codes:
            raise Failed(f"{self.name} ended with {code}.{self.end_of_log()}")
        return self.out.read_text()

    def stop(self):
        """Ask it to end, and wait."""
        self.supervisor.stdin.close()
        try:
            self.supervisor.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self):
        """End it with SIGKILL, with all processes that it started."""
        try:
            os.killpg(self.supervisor.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.supervisor.wait()
        self.supervisor.stdin.close()

    def end_of_log(self):
        text = self.log.read_text(errors="replace") + self.out.read_text(errors="replace")[-2000:]
        return "\n  " + "\n  ".join(text.splitlines()[-LOG_LINES_SHOWN:])


def run(name, command, directory, seconds_max, codes=(0,), **environment):
    """Run a command to its end and return what it printed."""
    return Process(name, command, directory, **environment).finish(seconds_max, codes)


def require(program, hint, *, at_least=None):
    """Refuse to go on without `program`; never skip."""
    if shutil.which(program) is None:
        raise Failed(f"{program} is missing. {hint}")
    if at_least is None:
        return
    arguments = ["version"] if program == "go" else ["--version"]
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    number = re.search(r"\d+(\.\d+)*", done.stdout)
    version = tuple(map(int, number[0].split("."))) if number else ()
    if done.returncode != 0 or (version and version < at_least):
        raise Failed(f"{program} is too old or does not work: {done.stdout.strip()[:100]}. {hint}")


# Each name is built by one thread. The others wait for it.
BUILDING = defaultdict(threading.Lock)


def built_once(name, definitions, build):
    """A directory that `build(directory)` fills, again only when one of the files changes."""
    with BUILDING[name]:
        return built_by_one(name, definitions, build)


def built_by_one(name, definitions, build):
    digest = hashlib.sha256()
    for definition in sorted(definitions):
        digest.update(definition.name.encode() + b"\0" + definition.read_bytes())
    built = CACHE / f"{name}-{digest.hexdigest()[:16]}"
    if not built.exists():
        print(f"     {name}: fetching and building, once", flush=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", suffix="-unfinished", dir=CACHE))
        try:
            build(directory)
            directory.rename(built)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    return built


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
