"""The instances of the service, which share the accounts of one prefix."""

import os
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import gate
import services as real
from cluster import MECHANISM
from judge import partition
from processes import Failed
from program import Instance, binary

# The first one is never restarted.
ROLES = ("steady", "second", "third")
GUEST = "guest"
# A multiple of the number of instances, so that each has the same share.
PARTITIONS = 12
SHARE = PARTITIONS // len(ROLES)
# Accounts of each partition: so each share has the same number of them.
ACCOUNTS_A_PARTITION = 2
# Accounts that have a file of their own, which comes and goes.
FOLLOWED = 2
INTERVALS = ("2s", "2s", "1s")
# The session of an instance that was killed; the brokers take no shorter one by default.
SESSION_MS = 6_000
USER = "scimtail"
# The supervisor starts the program at once.
PROGRAM_SECONDS_MAX = 10
# From the start of an instance: Kafka, registry, the end of a dead instance's session, and a rebalance.
ASSIGNED_SECONDS_MAX = 120
# `transaction.timeout.ms` (60 s), a new acquisition, and pauses between tries of a directory.
RECOVERY_SECONDS_MAX = 150
# A change of the files is seen within 15 s.
FOLLOWED_SECONDS_MAX = 30
HTTP_SECONDS_MAX = 10
LOOK_SECONDS = 0.2
# What may call for a person here: a token that is refused, and Kafka or the registry that are away for long.
ERRORS_EXPECTED = re.compile(
    r"sync failed again: a person has to look|(Kafka|the schema registry) cannot be used; "
)


def account_names():
    """Names that are spread evenly over the partitions; those of the followed files come last."""
    names, full = [], Counter()
    number = 0
    while len(names) < PARTITIONS * ACCOUNTS_A_PARTITION:
        name = f"tenant-{number:03}"
        number += 1
        if full[partition(name, PARTITIONS)] < ACCOUNTS_A_PARTITION:
            full[partition(name, PARTITIONS)] += 1
            names.append(name)
    return names


def own_copy(directory):
    """A copy of the program, which no build replaces while it runs."""
    copy = directory / "scimtail"
    shutil.copy2(binary(), copy)
    os.environ["SCIMTAIL"] = str(copy)


class Member(Instance):
    """One life of an instance."""

    def __init__(self, role, life, fleet):
        super().__init__(f"{role}-{life}", fleet.file(role), fleet.directory, "")
        self.role = role
        self.address = fleet.addresses[role]
        self.pid = pid(self.process)
        self.reloads = 0

    def take(self, line):
        super().take(line)
        self.reloads += line["message"].startswith("the configuration was read again")

    def hang_up(self):
        os.kill(self.pid, signal.SIGHUP)

    def page(self, path):
        url = f"http://{self.address}{path}"
        with real.http().open(url, timeout=HTTP_SECONDS_MAX) as response:
            return response.read()

    def shards_owned(self):
        found = re.search(rb"^scimtail_shards_owned (\d+)", self.page("/metrics"), re.MULTILINE)
        return int(found[1]) if found else 0


def pid(process):
    """The id of the program below its supervisor."""
    shell, program, found = process.supervisor.pid, str(binary()), []

    def is_there():
        children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        found[:] = [int(child) for child in children if runs(child, program)]
        return found

    process.wait_until(is_there, PROGRAM_SECONDS_MAX)
    return found[0]


def runs(child, program):
    try:
        return os.readlink(f"/proc/{child}/exe") == program
    except OSError:
        return False


class Fleet:
    def __init__(self, directory, prefix, vendors, ports, say):
        self.directory, self.prefix, self.vendors, self.say = directory, prefix, vendors, say
        self.addresses = {role: f"127.0.0.1:{ports()}" for role in (*ROLES, GUEST)}
        (directory / "accounts.d").mkdir()
        self.followed_file = directory / "accounts.d/followed.toml"
        self.password_file = directory / "kafka-password"
        self.registry_password_file = directory / "registry-password"
        # By name, all that there are at a calm time.
        self.accounts = {}
        # The newest life of each role that runs, and all lives.
        self.running, self.lives = {}, []
        # How many were told to end, and what those said that did not end with 0.
        self.terminated, self.ended_badly = 0, []

    def file(self, role):
        return self.directory / f"{role}.toml"

    def configure(self, brokers, registry_url):
        names = list(self.accounts)
        for role in (*ROLES, GUEST):
            text = self.settings(brokers, registry_url, self.addresses[role])
            text += "".join(self.account(name) for name in names[:-FOLLOWED])
            self.file(role).write_text(text)
        self.write_followed()

    def write_followed(self):
        names = list(self.accounts)[-FOLLOWED:]
        # Renamed, so that no instance reads half of it.
        new = self.followed_file.with_suffix(".new")
        new.write_text("".join(self.account(name) for name in names))
        os.replace(new, self.followed_file)

    def settings(self, brokers, registry_url, address):
        brokers = ", ".join(f'"{broker}"' for broker in brokers)
        return f"""
[kafka]
brokers = [{brokers}]
topic_prefix = "{self.prefix}"
partitions = {PARTITIONS}
[kafka.properties]
"security.protocol" = "sasl_plaintext"
"sasl.mechanism" = "{MECHANISM}"
"sasl.username" = "{USER}"
"session.timeout.ms" = {SESSION_MS}
"heartbeat.interval.ms" = {SESSION_MS // 3}
[kafka.secrets]
"sasl.password" = {{ file = "{self.password_file}" }}
[registry]
url = "{registry_url}"
username = "{gate.USER}"
password_file = "{self.registry_password_file}"
[http]
listen = "{address}"
[defaults.guard]
max_ratio = 1.0
"""

    def account(self, name):
        account = self.accounts[name]
        number = list(self.accounts).index(name)
        vendor = next(v for v in self.vendors if name in v.accounts)
        return f"""
[[account]]
name = "{name}"
provider = "generic"
base_url = "{vendor.base_url(name)}"
token_file = "{account.token_file}"
interval = "{INTERVALS[number % len(INTERVALS)]}"
baseline = "{baseline(number)}"
"""

    # Instances.

    def start(self, role):
        life = sum(member.role == role for member in self.lives) + 1
        member = Member(role, life, self)
        self.lives.append(member)
        self.running[role] = member
        return member

    def wait_until_assigned(self, member):
        """Waits until the group has given shards to an instance. Returns the seconds."""
        return self.wait(
            lambda: member.assigned,
            ASSIGNED_SECONDS_MAX,
            lambda: f"{member.name} was assigned nothing; {self.complaints()}",
        )

    def terminate(self, role):
        """SIGTERM. An instance that ends badly is no reason to end the soak: what follows may show more."""
        member = self.running.pop(role)
        self.terminated += 1
        try:
            member.stop()
        except Failed as error:
            member.follow()
            # Its supervisor says by which signal it ended, and that is told already.
            member.strange.clear()
            self.ended_badly.append(str(error))
            self.say(f"{member.name} ended badly: {str(error).splitlines()[0]}")

    def kill(self, role):
        self.running.pop(role).kill()

    def stop(self):
        """SIGKILL for all that still run."""
        for member in self.running.values():
            member.process.kill()
        self.running.clear()

    def follow(self):
        for member in self.running.values():
            member.follow()
            if not member.runs():
                code = member.process.supervisor.returncode
                end = member.process.end_of_log()
                raise Failed(f"{member.name} ended by itself with {code}.{end}")

    # Waits.

    def wait(self, done, seconds_max, missing):
        """Follows the logs until `done()`. Returns the seconds."""
        began = time.monotonic()
        while True:
            self.follow()
            if done():
                return time.monotonic() - began
            if time.monotonic() - began > seconds_max:
                raise Failed(f"not within {seconds_max} s: {missing()}")
            time.sleep(LOOK_SECONDS)

    def wait_for_syncs(self, count):
        """Waits until each account has completed so many syncs from now on. Returns the seconds."""
        since = time.time()

        def lacking():
            counts = dict.fromkeys(self.accounts, 0)
            for member in self.running.values():
                for account, times in member.completed.items():
                    counts[account] += sum(at > since for at in times[-count:])
            return {account: n for account, n in counts.items() if n < count}

        return self.wait(
            lambda: not lacking(),
            RECOVERY_SECONDS_MAX,
            lambda: f"{count} completed syncs; stuck: {lacking()}; {self.complaints()}",
        )

    def wait_until_balanced(self):
        """Waits until each instance has its share of the shards. Returns the seconds."""

        def owned():
            return {role: member.shards_owned() for role, member in self.running.items()}

        return self.wait(
            lambda: all(count == SHARE for count in owned().values()),
            ASSIGNED_SECONDS_MAX,
            lambda: f"each instance owns {SHARE} shards, they own {owned()}; {self.complaints()}",
        )

    def wait_until_reloaded(self, before):
        """Waits until each instance has read its configuration once more than `before` says."""
        return self.wait(
            lambda: all(member.reloads > before[member.name] for member in self.running.values()),
            FOLLOWED_SECONDS_MAX,
            lambda: f"the configuration is read again; {self.complaints()}",
        )

    def reloads(self):
        return {member.name: member.reloads for member in self.running.values()}

    # What the instances said.

    def said(self, kind):
        return sum((getattr(member, kind) for member in self.lives), Counter())

    def completed(self):
        return sum(len(times) for member in self.lives for times in member.completed.values())

    def complaints(self):
        newest = [*self.said("errors"), *self.said("warnings")][-4:]
        return "the service says: " + ("; ".join(newest) or "nothing")

    def judge_ends(self):
        if self.ended_badly:
            shown = "\n  ".join(self.ended_badly)
            raise Failed(f"{len(self.ended_badly)} of {self.terminated} ended badly:\n  {shown}")
        return f"{self.terminated} instances"

    def judge_logs(self):
        for member in self.lives:
            if member.strange:
                raise Failed(f"{member.name} printed: {member.strange[:3]}")
        errors = self.said("errors")
        unexpected = {text: n for text, n in errors.items() if not ERRORS_EXPECTED.match(text)}
        if unexpected:
            shown = "\n  ".join(f"{n} x {text}" for text, n in unexpected.items())
            raise Failed(f"the service calls for a person:\n  {shown}")


def baseline(number):
    """Of the account of this number."""
    return ("state", "events")[number % 2]
