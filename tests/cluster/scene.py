"""What every part needs: a fresh prefix, two directories that change, instances, and the verdict."""

import itertools
import random
import re
import secrets
import time
from collections import Counter

import tenants
from processes import Failed
from program import TOKEN_VARIABLE, Instance, once, schemas_check

# In partitions 0 and 3 of 4, and in different ones of 12 too: each account has a shard of its own.
ACCOUNTS = {"acme": "state", "globex": "events"}
PARTITIONS = 4
TOPICS = ("events", "users", "groups", "memberships", "syncs", "control")
# The session of an instance that was killed; the brokers take no shorter one by default.
SESSION_MS = 6_000
# From the moment at which all brokers are in sync again: `transaction.timeout.ms` (60 s), then a new acquisition.
RECOVERY_SECONDS_MAX = 120
LOOK_SECONDS = 0.1


class Scene:
    """One prefix on a cluster. `settings`: more lines of [kafka]."""

    def __init__(self, stage, name, partitions=PARTITIONS, settings=""):
        self.stage, self.cluster, self.checker = stage, stage.cluster, stage.checker
        self.prefix = f"{name}-{secrets.token_hex(4)}"
        self.partitions = partitions
        self.directory = stage.work / f"{stage.cluster.version}-{self.prefix}"
        self.directory.mkdir()
        self.rng = random.Random(f"{stage.seed} {name} {stage.cluster.version}")
        self.token = secrets.token_hex(16)
        self.server = tenants.Server(self.token)
        self.tenants = {name: tenants.Tenant(self.rng.random()) for name in ACCOUNTS}
        self.server.tenants.update(self.tenants)
        self.file = self.directory / "scimtail.toml"
        self.file.write_text(self.configuration(settings))
        self.instances = []
        self.checker.begin(self.prefix, partitions, ACCOUNTS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for instance in self.instances:
            instance.process.kill()
        self.server.stop()

    def configuration(self, settings):
        brokers = ", ".join(f'"{address}"' for address in self.cluster.bootstrap)
        text = f"""
[kafka]
brokers = [{brokers}]
topic_prefix = "{self.prefix}"
partitions = {self.partitions}
create_topics = true
{settings}
[kafka.properties]
"session.timeout.ms" = {SESSION_MS}
"heartbeat.interval.ms" = {SESSION_MS // 3}
[registry]
url = "{self.stage.registry}"
[defaults]
interval = "1s"
[defaults.guard]
max_ratio = 1.0
"""
        for account, baseline in ACCOUNTS.items():
            text += f"""
[[account]]
name = "{account}"
provider = "generic"
base_url = "{self.server.base_url(account)}"
token_env = "{TOKEN_VARIABLE}"
baseline = "{baseline}"
"""
        return text

    @property
    def topics(self):
        return [f"{self.prefix}.{topic}" for topic in TOPICS]

    def say(self, text):
        self.stage.say(text)

    # The program.

    def once(self, name="once"):
        return once(name, self.file, self.directory, self.token)

    def start(self):
        """Starts one more instance of the service."""
        name = f"service-{len(self.instances) + 1}"
        self.instances.append(Instance(name, self.file, self.directory, self.token))
        return self.instances[-1]

    def first_sync(self):
        """`run --once` on the new prefix. Returns the failure if it needed a second try. The part first-starts is about
        these; here they must not hide what comes later."""
        code, failure = self.once()
        if code == 0:
            return None
        self.say(f"the first sync ended with {code}: {failure}")
        code, again = self.once("again")
        if code != 0:
            raise Failed(f"the first sync ended with {code}, and once more: {again}")
        return failure

    def running(self):
        """Starts the service; its directories change from now on."""
        self.first_sync()
        self.change(True)
        instance = self.start()
        self.wait_for_syncs(1)
        return instance

    def change(self, changing):
        for tenant in self.tenants.values():
            tenant.change(changing)

    def follow(self, may_end=()):
        for instance in self.instances:
            instance.follow()
            if instance not in may_end and not instance.runs():
                end = instance.process.end_of_log()
                code = instance.process.supervisor.returncode
                raise Failed(f"{instance.name} ended by itself with {code}.{end}")

    def completed(self, account):
        """When the syncs of an account completed, over all instances."""
        times = [time for i in self.instances for time in i.completed.get(account, [])]
        return sorted(times)

    def wait_for_syncs(self, more, seconds_max=RECOVERY_SECONDS_MAX, since=None, may_end=()):
        """Waits until each account has completed `more` syncs since a time, else since now. Returns the seconds."""
        began = time.monotonic()
        since = dict.fromkeys(ACCOUNTS, time.time() if since is None else since)
        return self.wait_for_syncs_since(since, more, seconds_max, began, may_end)

    def wait_for_syncs_since(self, since, more, seconds_max, began, may_end=()):
        while True:
            self.follow(may_end)
            counts = {
                account: sum(at > since[account] for at in self.completed(account))
                for account in ACCOUNTS
            }
            if min(counts.values()) >= more:
                return time.monotonic() - began
            if time.monotonic() - began > seconds_max:
                raise Failed(
                    f"stuck: {counts} syncs completed in {seconds_max} s, {more} are wanted; "
                    f"{self.complaints_of_instances()}"
                )
            time.sleep(LOOK_SECONDS)

    def settle(self, may_end=()):
        """Directories hold still, and the service reads and publishes their newest version. Returns the seconds."""
        began = time.monotonic()
        self.change(False)
        # A walk that is under way began before; two syncs that began after it have seen the newest version.
        since = dict.fromkeys(ACCOUNTS, time.time())
        return self.wait_for_syncs_since(since, 2, RECOVERY_SECONDS_MAX, began, may_end)

    # The verdict.

    def judge_subjects(self):
        """Each topic has one schema, and the registry keeps incompatible ones away from it."""
        said = schemas_check(self.file, self.directory, self.token)
        for topic in self.topics:
            # A note may follow: a registry may keep another text of the same schema.
            right = rf"ok    {re.escape(topic)}-value  id \d+, version 1 of 1, FULL_TRANSITIVE"
            if not re.search(f"^{right}$", said, re.MULTILINE):
                raise Failed(f"the schema of {topic} is not as it should be:\n{said}")

    def judge(self, may_end=()):
        """All that instances said, and all that the topics hold. Returns a line about it."""
        self.follow(may_end)
        for instance in self.instances:
            if instance.strange:
                raise Failed(f"{instance.name} printed: {instance.strange[:3]}")
        self.checker.check(self.tenants)
        self.checker.keep(self.directory / "records.jsonl")
        self.stage.dumps.append(self.directory / "records.jsonl")
        counts = self.checker.counts
        return (
            f"{counts['records']} records, {counts['events']} events, {counts['transactions']} transactions, "
            f"{counts['completed']} completed syncs"
        )

    def finish(self):
        """The end of a part: everything is published, the service ends well, and nothing is left open."""
        running = [instance for instance in self.instances if instance.runs()]
        ended = [instance for instance in self.instances if not instance.runs()]
        settled = self.settle(ended)
        for instance in running:
            instance.stop()
        judged = self.judge(self.instances)
        if not self.checker.counts["events"]:
            raise Failed(f"nothing changed, so nothing is proven: {judged}")
        for text, times in sum((i.warnings for i in self.instances), Counter()).most_common(5):
            self.say(f"warned {times} times: {text[:200]}")
        if left := self.cluster.open_transactions(self.topics):
            raise Failed(f"a transaction is left open in {', '.join(left)}")
        # Faults that end by themselves ask no person to act.
        if errors := {text: n for i in self.instances for text, n in i.errors.items()}:
            shown = "\n  ".join(f"{n} x {text}" for text, n in list(errors.items())[:8])
            raise Failed(f"the service calls for a person:\n  {shown}")
        return (
            f"{judged}; settled after {settled:.1f} s; longest pause {self.longest_pause():.1f} s"
        )

    def longest_pause(self):
        """Seconds between two completed syncs of an account, at most."""
        pauses = [0.0]
        for account in ACCOUNTS:
            times = self.completed(account)
            pauses += [later - before for before, later in itertools.pairwise(times)]
        return max(pauses)

    def complaints_of_instances(self):
        said = [text for i in self.instances for text in [*i.errors, *i.warnings]]
        return "the service says: " + ("; ".join(said[-4:]) or "nothing")
