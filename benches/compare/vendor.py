"""The load server: a SCIM directory in a process of its own, and what it says of itself."""

import json
import subprocess
import urllib.parse
from contextlib import contextmanager
from dataclasses import dataclass

import services
from processes import Failed

TOKEN = "compare-token"
TOKEN_VARIABLE = "COMPARE_TOKEN"
PAGE = 1_000
# The manifest of a million users.
ANSWER_SECONDS_MAX = 60


@dataclass(frozen=True)
class Size:
    users: int
    groups: int
    memberships: int
    page: int = PAGE

    def __str__(self):
        groups = "1 group" if self.groups == 1 else f"{self.groups:,} groups"
        return f"{self.users:,} users, {groups}, {self.memberships:,} memberships"


@dataclass
class Vendor:
    origin: str
    size: Size
    pid: int

    @property
    def base_url(self):
        return f"{self.origin}/scim/v2"


def bound(command):
    """The command, which the kernel ends together with the harness, however that ends."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)]


@contextmanager
def running(tools, size):
    """A load server whose pages are all rendered."""
    command = [tools / "directory", "--token", TOKEN, "--page", size.page, "--users", size.users]
    command += ["--groups", size.groups, "--memberships", size.memberships]
    process = subprocess.Popen(bound(command), stdout=subprocess.PIPE, text=True)
    try:
        origin = process.stdout.readline().strip()
        if not origin:
            raise Failed(f"the load server did not start: {size}")
        yield Vendor(origin, size, process.pid)
    finally:
        process.kill()
        process.wait()


def ask(vendor, path, **query):
    """Sends a question with `query`, or without any a GET."""
    url = f"{vendor.origin}/control/{path}?{urllib.parse.urlencode(query)}"
    with services.http().open(url, timeout=ANSWER_SECONDS_MAX) as answer:
        return json.loads(answer.read())


def tell(vendor, path, **query):
    url = f"{vendor.origin}/control/{path}?{urllib.parse.urlencode(query)}"
    with services.http().open(url, data=b"", timeout=ANSWER_SECONDS_MAX) as answer:
        body = answer.read()
        return json.loads(body) if body else None


def reset(vendor):
    """Statistics count from now on."""
    tell(vendor, "reset")


def statistics(vendor):
    return ask(vendor, "statistics")


def manifest(vendor):
    """What the directory holds."""
    return ask(vendor, "manifest")


def churn(vendor, fraction, seed):
    """Changes a share of the users: half get a title or department, a tenth each is disabled,
    added, removed, joins a group and leaves one. Returns what changed, by the names of the
    events."""
    count = round(vendor.size.users * fraction)
    tenth = count // 10
    parts = dict.fromkeys(("disables", "removes", "adds", "joins", "leaves"), tenth)
    if not vendor.size.groups:
        parts["joins"] = parts["leaves"] = 0
    return tell(vendor, "churn", seed=seed, updates=count - sum(parts.values()), **parts)
