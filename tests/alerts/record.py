"""Records the metrics of scimtail in the situations that the alerts are for.

    tests/alerts/run                 all situations; takes 8 minutes
    tests/alerts/run held paused     only these

Each situation starts the real program against a real Kafka and registry, and lets happen what its steps say. Every 5 s
its pages of metrics are read, as Prometheus reads them. The series go into deploy/prometheus/alerts_test/SITUATION.yaml,
between the marks there. What has to fire when stands below the marks and is written by hand.

What is recorded is changed in four ways:
- Only metrics that a rule names are kept. Labels `job` and `instance` and the series `up` are those that Prometheus adds.
- Times are in seconds since the recording began, because the clock of promtool begins at 0.
- A series that a page no longer has is marked stale at once, as Prometheus does.
- In some situations nothing happens at the end. There the last page is held for hours (`hold`).
"""

import argparse
import concurrent.futures
import math
import os
import random
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

import builds
import services as real
from misbehaving import Directory
from processes import ROOT, Failed, Process, run

RULES = ROOT / "deploy/prometheus/alerts.yaml"
TESTS = ROOT / "deploy/prometheus/alerts_test"
BEGIN, END = "    # Recorded by tests/alerts/run.\n", "    # End of the recording.\n"
STEP_SECONDS = 5
RECORD_SECONDS = 360
HOUR = 3600
READY_SECONDS_MAX = 120
TOOL_SECONDS_MAX = 60
COMMAND_SECONDS_MAX = 60
HTTP_SECONDS_MAX = 2
HEAP_MIB = 256
TOKEN_VARIABLE = "ALERTS_TOKEN"
PASSWORD = "alerts"
# In different partitions of 2.
ACCOUNTS = ("acme", "globex")
# Where a page is held for hours: the newest sync of another account would not be that old.
ONLY_ACME = {"scimtail-1": ("acme",)}


# Below the range from which Linux takes the ports of outgoing connections: a port that is free stays free.
PORTS = range(20_000, 32_000)
TAKEN = set()


def free_port():
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in TAKEN:
            TAKEN.add(port)
            return port
    raise Failed(f"all ports from {PORTS.start} to {PORTS.stop} are in use")


def binary():
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    path = Path(os.environ.get("SCIMTAIL") or target / "debug/scimtail").absolute()
    if not path.exists():
        raise Failed(f"{path} is missing; → build it with `cargo build`, or name another program in SCIMTAIL")
    return path


class Broker:
    """One broker. Its first listener is for tools; clients of the second one log in as `scimtail`."""

    def __init__(self, directory):
        directory.mkdir()
        self.directory = directory
        port, self.login_port, controller = free_port(), free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{port}"
        self.properties = directory / "server.properties"
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        self.properties.write_text(
            f"""
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{self.bootstrap},LOGIN://127.0.0.1:{self.login_port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{self.bootstrap},LOGIN://127.0.0.1:{self.login_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,LOGIN:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
log.dirs={directory / "data"}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.num.partitions=2
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=8388608
sasl.enabled.mechanisms=PLAIN
listener.name.login.plain.sasl.jaas.config={plain} user_scimtail="{PASSWORD}";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
"""
        )
        tool = ["kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", "c2NpbXRhaWwtYWxlcnRzLTE"]
        run("format", [*self.java(), *tool, "--config", self.properties], directory, TOOL_SECONDS_MAX)
        self.process = None
        self.start()

    def java(self):
        return [*real.java(self.directory, HEAP_MIB), "-cp", builds.services() / "kafka/*"]

    def start(self):
        log = self.directory / "kafka.log"
        before = log.stat().st_size if log.exists() else 0
        self.process = Process("kafka", [*self.java(), "kafka.Kafka", self.properties], self.directory)
        self.process.wait_until(lambda: "Kafka Server started" in log.read_text()[before:], READY_SECONDS_MAX)

    def tool(self, main, *arguments):
        name = f"tool-{secrets.token_hex(4)}"
        command = [*self.java(), main, "--bootstrap-server", self.bootstrap, *arguments]
        run(name, command, self.directory, TOOL_SECONDS_MAX)

    def right(self, rule, operation, topic):
        """Permits (`allow`) or forbids (`deny`) scimtail an operation on a topic. What is forbidden counts."""
        rule = [f"--{rule}-principal", "User:scimtail", "--operation", operation, "--topic", topic]
        self.tool("org.apache.kafka.tools.AclCommand", "--add", *rule)

    def recreate(self, topic):
        for change in (["--delete"], ["--create", "--partitions", 2, "--config", "cleanup.policy=compact"]):
            self.tool("org.apache.kafka.tools.TopicCommand", *change, "--topic", topic)


class Instance:
    """A service, and the page of its metrics. `name` is its label `instance`."""

    def __init__(self, situation, name, accounts=ACCOUNTS):
        self.situation, self.name = situation, name
        self.port = free_port()
        self.file = situation.directory / f"{name}.toml"
        self.file.write_text(situation.configuration(self.port, accounts))
        self.process = None
        self.is_to_run = False

    def start(self):
        command = [binary(), "--config", self.file, "run"]
        self.process = Process(self.name, command, self.situation.directory, **self.environment())
        self.is_to_run = True

    def environment(self):
        return {TOKEN_VARIABLE: self.situation.token, "USER": "tester"}

    def command(self, *arguments, codes=(0,)):
        """Another command with this configuration."""
        name = f"command-{secrets.token_hex(4)}"
        command = [binary(), "--config", self.file, *arguments]
        run(name, command, self.situation.directory, COMMAND_SECONDS_MAX, codes, **self.environment())

    def stop(self):
        self.is_to_run = False
        self.process.stop()

    def kill(self):
        self.is_to_run = False
        self.process.kill()

    def must_run(self):
        """What is recorded of a service that could not start shows nothing."""
        if self.is_to_run and self.process.supervisor.poll() is not None:
            raise Failed(f"{self.situation.name}: {self.name} ended by itself.{self.process.end_of_log()}")

    def page(self):
        """The series of the page by name with labels; `None`: no answer."""
        try:
            with real.http().open(f"http://127.0.0.1:{self.port}/metrics", timeout=HTTP_SECONDS_MAX) as answer:
                text = answer.read().decode()
        except OSError:
            return None
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {series: float(value) for series, value in lines}


class Situation:
    """Instances on a prefix of their own, and what happens to them when. Prometheus learns of an instance when it first
    starts."""

    # Of all accounts.
    interval = "10s"
    # Seconds, what is written about it, what happens.
    steps = ()
    # Until when the last page is held, in seconds since the beginning.
    hold = None
    instances = ("scimtail-1",)
    own_broker = own_registry = login = False
    known = {}

    def __init__(self, name, stage):
        self.name = name
        self.directory = stage.work / name
        self.directory.mkdir()
        self.token = secrets.token_hex(16)
        self.broker = Broker(self.directory / "broker") if self.own_broker else stage.broker
        self.registry_process = None
        self.registry = stage.registry
        if self.own_registry:
            self.registry, self.registry_process = stage.start_registry(self.directory / "registry")
        self.prefix = f"alerts-{name}-{secrets.token_hex(4)}"
        self.directories = {account: Directory(self.token) for account in (*ACCOUNTS, "initech")}
        self.services = {
            instance: Instance(self, instance, self.known.get(instance, ACCOUNTS)) for instance in self.instances
        }
        # By series: step and value.
        self.samples = {}
        self.marks = []

    def configuration(self, port, accounts):
        bootstrap = f"localhost:{self.broker.login_port}" if self.login else self.broker.bootstrap
        text = f"""
[kafka]
brokers = ["{bootstrap}"]
topic_prefix = "{self.prefix}"
partitions = 2
replication = 1
"""
        if self.login:
            text += f"""
[kafka.properties]
"security.protocol" = "sasl_plaintext"
"sasl.mechanism" = "PLAIN"
"sasl.username" = "scimtail"
[kafka.secrets]
"sasl.password" = {{ env = "ALERTS_PASSWORD" }}
"""
            os.environ["ALERTS_PASSWORD"] = PASSWORD
        text += f"""
[registry]
url = "{self.registry}"
[http]
listen = "127.0.0.1:{port}"
[defaults]
interval = "{self.interval}"
"""
        for account in accounts:
            text += f"""
[[account]]
name = "{account}"
provider = "generic"
base_url = "{self.directories[account].base_url}"
token_env = "{TOKEN_VARIABLE}"
"""
        return text

    def prepare(self):
        """Before the recording begins."""
        self.first.command("topics", "--create")

    @property
    def first(self):
        return self.services["scimtail-1"]

    @property
    def second(self):
        return self.services["scimtail-2"]

    @property
    def acme(self):
        return self.directories["acme"]

    def scrape(self, step):
        for instance, service in self.services.items():
            labels = f'job="scimtail",instance="{instance}:9464"'
            if service.process is None:
                continue
            page = service.page()
            self.samples.setdefault(f"up{{{labels}}}", {})[step] = 0.0 if page is None else 1.0
            for series, value in (page or {}).items():
                name, _, own = series.rstrip("}").partition("{")
                whole = f"{name}{{{labels},{own}}}" if own else f"{name}{{{labels}}}"
                self.samples.setdefault(whole, {})[step] = value

    def happen(self, what, action, began):
        self.marks.append(f"{clock(time.monotonic() - began)} {what}")
        action(self)

    def end(self):
        for service in self.services.values():
            if service.process is not None:
                service.kill()
        if self.own_broker:
            self.broker.process.kill()
        if self.registry_process:
            self.registry_process.kill()


class Normal(Situation):
    steps = ((0, "starts", lambda s: s.first.start()),)


class RareSyncs(Situation):
    """Nothing happens between two syncs."""

    known = ONLY_ACME
    interval = "3h"
    steps = Normal.steps
    # The next sync is due a tenth early at the earliest.
    hold = 2 * HOUR + HOUR // 2


class RollingRestart(Situation):
    """Two instances restart one after the other, twice."""

    instances = ("scimtail-1", "scimtail-2")
    steps = (
        (0, "scimtail-1 starts", lambda s: s.first.start()),
        (10, "scimtail-2 starts", lambda s: s.second.start()),
        (60, "scimtail-1 is stopped", lambda s: s.first.stop()),
        (75, "scimtail-1 starts", lambda s: s.first.start()),
        (120, "scimtail-2 is stopped", lambda s: s.second.stop()),
        (135, "scimtail-2 starts", lambda s: s.second.start()),
        (200, "scimtail-1 is stopped", lambda s: s.first.stop()),
        (215, "scimtail-1 starts", lambda s: s.first.start()),
        (260, "scimtail-2 is stopped", lambda s: s.second.stop()),
        (275, "scimtail-2 starts", lambda s: s.second.start()),
    )


class Rebalance(Situation):
    """Accounts move to an instance that joins, and back when it leaves."""

    instances = ("scimtail-1", "scimtail-2")
    steps = (
        (0, "scimtail-1 starts", lambda s: s.first.start()),
        (60, "scimtail-2 joins", lambda s: s.second.start()),
        (150, "scimtail-2 leaves", lambda s: s.second.stop()),
        (200, "scimtail-2 joins", lambda s: s.second.start()),
        (280, "scimtail-2 is killed", lambda s: s.second.kill()),
        (300, "scimtail-2 starts", lambda s: s.second.start()),
    )


class ProcessDead(Situation):
    steps = (*Normal.steps, (60, "the only process is killed", lambda s: s.first.kill()))
    hold = HOUR


class InstanceDead(Situation):
    """Of two instances one is killed; the other takes its shard over."""

    instances = RollingRestart.instances
    steps = (*RollingRestart.steps[:2], (60, "scimtail-2 is killed", lambda s: s.second.kill()))
    hold = HOUR


class BrokerDead(Situation):
    own_broker = True
    steps = (*Normal.steps, (60, "the only broker is killed", lambda s: s.broker.process.kill()))
    hold = 3 * HOUR


class BrokerBack(Situation):
    own_broker = True
    steps = (*BrokerDead.steps, (240, "the broker is back", lambda s: s.broker.start()))


class RegistryDead(Situation):
    own_registry = True
    steps = (*Normal.steps, (60, "the registry is killed", lambda s: s.registry_process.kill()))
    hold = HOUR


class ShardUnowned(Situation):
    """The second instance has another configuration: Kafka assigns a shard to it whose account it does not know."""

    instances = RollingRestart.instances
    known = {"scimtail-2": ("initech",)}
    steps = (
        *Normal.steps,
        (60, "scimtail-2 joins, and has another configuration", lambda s: s.second.start()),
    )
    hold = HOUR


class WriteRefused(Situation):
    """The right to write to one topic is taken away while scimtail has something to write there."""

    own_broker = login = True
    steps = (
        *Normal.steps,
        (50, "writing to `users` is forbidden", lambda s: s.broker.right("deny", "Write", f"{s.prefix}.users")),
        (60, "acme loses a user", lambda s: s.acme.lose(1)),
    )
    hold = HOUR

    def prepare(self):
        super().prepare()
        # A topic of which one right is forbidden permits only what is stated.
        self.broker.right("allow", "All", f"{self.prefix}.users")


class Held(Situation):
    known = ONLY_ACME
    steps = (*Normal.steps, (60, "acme loses most of its users", lambda s: s.acme.lose(15)))
    hold = 3 * HOUR


class Stopped(Situation):
    """A topic was deleted and created again while the service was down."""

    steps = (
        *Normal.steps,
        (30, "is stopped", lambda s: s.first.stop()),
        (35, "`users` is deleted and created again", lambda s: s.broker.recreate(f"{s.prefix}.users")),
        (60, "starts", lambda s: s.first.start()),
    )
    hold = HOUR


class Blind(Situation):
    steps = (
        *Normal.steps,
        (60, "the list of acme stays shorter than its total", lambda s: s.acme.misbehave("short")),
    )
    hold = HOUR


class Failing(Situation):
    known = ONLY_ACME
    steps = (*Normal.steps, (60, "the directory of acme answers 500", lambda s: s.acme.misbehave("failing")))
    hold = 2 * HOUR


class FailingFromTheStart(Situation):
    """An account that has never completed a sync."""

    steps = (*Normal.steps,)
    hold = HOUR

    def prepare(self):
        super().prepare()
        self.acme.misbehave("failing")


class Silent(Situation):
    known = ONLY_ACME
    steps = (
        *Normal.steps,
        (60, "the directory of acme hands out one user in 15 s", lambda s: s.acme.misbehave("slow")),
    )
    hold = 3 * HOUR


class SilentFromTheStart(Situation):
    """A first sync that does not end."""

    known = ONLY_ACME
    steps = (*Normal.steps,)
    hold = 4 * HOUR

    def prepare(self):
        super().prepare()
        self.acme.misbehave("slow")


class Paused(Situation):
    """A person pauses an account during an outage of its vendor."""

    known = ONLY_ACME
    steps = (
        *Failing.steps,
        (90, "acme is paused", lambda s: s.first.command("pause", "acme", "--reason", "maintenance")),
    )
    hold = 26 * HOUR


class Resumed(Situation):
    steps = (
        *Normal.steps,
        (60, "acme is paused", lambda s: s.first.command("pause", "acme", "--reason", "maintenance")),
        (200, "acme is resumed", lambda s: s.first.command("resume", "acme")),
    )


class RemovalsUnproven(Situation):
    """A user is no longer listed, and the directory does not answer whether it exists."""

    steps = (
        *Normal.steps,
        (55, "GET by id answers 500", lambda s: s.acme.misbehave("lookups fail")),
        (60, "acme no longer lists a user", lambda s: s.acme.lose(1)),
    )
    hold = HOUR


class RecordsReduced(Situation):
    steps = (*Normal.steps, (60, "a user of acme has a title of 1.5 MB", lambda s: s.acme.grow("x" * 1_500_000)))


SITUATIONS = (
    Normal, RareSyncs, RollingRestart, Rebalance, ProcessDead, InstanceDead, BrokerDead, BrokerBack, RegistryDead,
    ShardUnowned, WriteRefused, Held, Stopped, Blind, Failing, FailingFromTheStart, Silent, SilentFromTheStart, Paused, Resumed,
    RemovalsUnproven, RecordsReduced,
)  # fmt: skip


def file_name(situation):
    """`process_dead` of `ProcessDead`."""
    return re.sub(r"(?<=.)([A-Z])", r"_\1", situation.__name__).lower()


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class Stage:
    """Kafka and the registry that the situations share."""

    def __init__(self, work):
        self.work = work
        self.registries = []
        self.registry, _ = self.start_registry(work / "registry")
        self.broker = Broker(work / "broker")

    def start_registry(self, directory):
        directory.mkdir()
        services = real.Services(None, None, None, [])
        process = real.start_registry(services, directory)
        self.registries.append(process)
        process.wait_until(lambda: real.answers(f"{services.registry}/subjects"), READY_SECONDS_MAX)
        return services.registry, process

    def end(self):
        self.broker.process.kill()
        for process in self.registries:
            process.kill()


def record(situations, pool):
    """Lets everything happen, and reads the pages meanwhile."""
    began, began_at = time.monotonic(), time.time()
    ahead = [(at, what, action, s) for s in situations for at, what, action in s.steps]
    ahead.sort(key=lambda step: step[0])
    happening = []
    for step in range(RECORD_SECONDS // STEP_SECONDS + 1):
        time.sleep(max(0.0, began + step * STEP_SECONDS - time.monotonic()))
        while ahead and ahead[0][0] <= step * STEP_SECONDS:
            _, what, action, situation = ahead.pop(0)
            happening.append(pool.submit(situation.happen, what, action, began))
        for scraped in [pool.submit(situation.scrape, step) for situation in situations]:
            scraped.result()
        for service in (service for situation in situations for service in situation.services.values()):
            service.must_run()
        if step % 12 == 0:
            print(f"{clock(step * STEP_SECONDS)} of {clock(RECORD_SECONDS)}", flush=True)
    for done in happening:
        done.result(TOOL_SECONDS_MAX)
    return began_at


def notation(samples, steps, shift, hold):
    """Values in the notation of promtool."""
    values = []
    for step in range(steps):
        if step in samples:
            value = samples[step]
            # 0 stands for no time.
            values.append(number(value - shift if value else value))
        else:
            values.append("stale" if step - 1 in samples else "_")
    runs = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    if hold:
        # What is stale stays away.
        if runs[-1][0] == "stale":
            runs.append(["_", 0])
        runs[-1][1] += hold // STEP_SECONDS - steps + 1
    return " ".join(repeated(value, count) for value, count in runs)


def repeated(value, count):
    if count == 1:
        return value
    # `_x3` is three gaps, `7+0x3` is 7 and three more.
    return f"_x{count}" if value == "_" else f"{value}+0x{count - 1}"


def number(value):
    return "NaN" if math.isnan(value) else f"{round(value, 3):g}" if abs(value) < 1_000 else repr(round(value, 3))


def write(situation, began_at):
    """Puts the recording into the test file of its situation."""
    named = set(re.findall(r"\b(?:scimtail_[a-z_]+|up)\b", RULES.read_text()))
    steps = RECORD_SECONDS // STEP_SECONDS + 1
    text = BEGIN + "".join(f"    #   {mark}\n" for mark in sorted(situation.marks, key=seconds))
    if situation.hold:
        text += f"    #   {clock(RECORD_SECONDS)} and the last page is held until {clock(situation.hold)}\n"
    text += "    input_series:\n"
    for series, samples in sorted(situation.samples.items()):
        name = series.partition("{")[0]
        if name not in named:
            continue
        shift = began_at if name.endswith("_timestamp_seconds") else 0.0
        text += f"      - series: '{series}'\n"
        text += f"        values: '{notation(samples, steps, shift, situation.hold)}'\n"
    path = TESTS / f"{situation.name}.yaml"
    before, _, rest = path.read_text().partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise Failed(f"{path} has no marks of a recording; → put the lines of BEGIN and END of record.py there")
    path.write_text(before + text + END + after)


def seconds(mark):
    minutes, rest = mark.split(" ")[0].split(":")
    return 60 * int(minutes) + int(rest)


def main():
    names = {file_name(situation): situation for situation in SITUATIONS}
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("situations", nargs="*", help=f"of {', '.join(names)}; all if none is named")
    arguments.add_argument("--keep", action="store_true", help="keep the logs")
    options = arguments.parse_args()
    if unknown := [name for name in options.situations if name not in names]:
        raise Failed(f"no situation is named {', '.join(unknown)}; → use some of {', '.join(names)}")
    work = Path(tempfile.mkdtemp(prefix="scimtail-alerts-"))
    situations, stage = [], None
    try:
        stage = Stage(work)
        for name in options.situations or names:
            situations.append(names[name](name, stage))
        with concurrent.futures.ThreadPoolExecutor(max_workers=2 * len(situations) + 4) as pool:
            list(pool.map(lambda situation: situation.prepare(), situations))
            began_at = record(situations, pool)
        for situation in situations:
            write(situation, began_at)
    finally:
        for situation in situations:
            situation.end()
        if stage:
            stage.end()
        if options.keep:
            print(f"logs: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit(str(failed))
