"""The parts: what happens to the brokers while scimtail works. Each returns a line about what it saw."""

import math
import os
import secrets
import signal
import time
from dataclasses import dataclass, field

from confluent_kafka import Producer

from judge import partition
from processes import Failed
from scene import ACCOUNTS, Scene

# Values of `kafka.replication`: with each of them topics have to survive the loss of a broker.
REPLICATIONS = {"unset": "", "-1": "replication = -1", "3": "replication = 3"}
# The default of scimtail.
FIRST_START_PARTITIONS = 12
REPLICAS = 3
MIN_IN_SYNC = "2"
# Completed syncs between two faults: a fault strikes a service that works.
SYNCS_BETWEEN = 2
# How long the service has to hear from the group when an instance joins, or takes over.
ASSIGNED_SECONDS_MAX = 60
# Long enough for several polls of a service that does not hang.
HANGING_SECONDS = 5
OPEN_SECONDS_MAX = 30
# How long a killed broker stays away before it is started again, at most. Its session ends after 9 s.
AWAY_SECONDS_MAX = 4.0
# Longer than a transaction may stay open, 60 s: commits that were under way are given up.
OUTAGE_SECONDS = 75.0
# A sync that completes later than this after a kill was not acknowledged before it.
AWAY_SECONDS_MIN = 1.0


@dataclass
class Topics:
    """The topics that first starts created."""

    looked_at: int = 0
    wrong: list = field(default_factory=list)


def first_starts(stage, count, topics):
    """Starts in a row, each on a prefix that is new. Notes in `topics` what they created."""
    failures, slowest, second_failures = [], 0.0, 0
    for number in range(count):
        said, settings = list(REPLICATIONS.items())[number % len(REPLICATIONS)]
        with Scene(stage, f"first-{number + 1}", FIRST_START_PARTITIONS, settings) as scene:
            began = time.monotonic()
            code, end = scene.once()
            slowest = max(slowest, time.monotonic() - began)
            if code == 0:
                scene.judge()
                topics.looked_at += len(scene.topics)
                topics.wrong += topics_wrong(scene, said)
            else:
                failures.append(f"start {number + 1} ended with {code}: {end}")
                # Whether the first one was only too early.
                second_failures += scene.once("again")[0] != 0
            # Thousands of partitions would be another test.
            scene.cluster.delete(scene.topics)
    if failures:
        shown = "\n  ".join(failures)
        raise Failed(
            f"{len(failures)} of {count} first starts failed, and {second_failures} of them once more:\n  {shown}"
        )
    return f"{count} of {count}, the slowest took {slowest:.1f} s"


def no_topic_is_wrong(topics):
    if topics.wrong:
        shown = "\n  ".join(sorted(set(topics.wrong)))
        raise Failed(f"{len(topics.wrong)} complaints:\n  {shown}")
    if not topics.looked_at:
        raise Failed("no first start ended well, so no topic was looked at")
    return f"{topics.looked_at} topics"


def topics_wrong(scene, said):
    """What is wrong with the topics that were created with `kafka.replication` as `said`."""
    replicas = scene.cluster.replicas(scene.topics)
    in_sync = scene.cluster.settings(scene.topics, "min.insync.replicas")
    names = {topic: topic.removeprefix(scene.prefix + ".") for topic in scene.topics}
    few = [names[t] for t, n in replicas.items() if n != REPLICAS]
    weak = [names[t] for t, value in in_sync.items() if value != MIN_IN_SYNC]
    wrong = []
    if few:
        wrong.append(f"replication {said}: not {REPLICAS} replicas: {', '.join(few)}")
    if weak:
        values = ", ".join(sorted({in_sync[f"{scene.prefix}.{name}"] for name in weak}))
        wrong.append(
            f"replication {said}: min.insync.replicas is {values}, not {MIN_IN_SYNC}: {', '.join(weak)}"
        )
    return wrong


def rolling(stage, rounds):
    """Brokers are restarted one after the other, as an administrator does it."""
    with Scene(stage, "rolling") as scene:
        scene.running()
        for number in range(rounds):
            for node, broker in scene.cluster.brokers.items():
                restart(scene, broker)
                scene.follow()
                scene.say(f"round {number + 1}: broker {node} is back and in sync")
            after = scene.wait_for_syncs(SYNCS_BETWEEN)
            scene.say(f"round {number + 1}: {SYNCS_BETWEEN} syncs after {after:.1f} s")
        return scene.finish()


def restart(scene, broker):
    """SIGTERM, and wait until everything is in sync again."""
    broker.terminate()
    scene.cluster.restart([broker.node])
    scene.cluster.wait_until_in_sync()


def kill(stage, kills, double_kills):
    """SIGKILL of a broker that matters in one way or another, and then of two at once."""
    with Scene(stage, "kill") as scene:
        scene.running()
        for number in range(kills):
            struck = strike(scene, number, 1)
            scene.say(f"kill {number + 1}: {struck}")
        for number in range(double_kills):
            struck = strike(scene, number, 2)
            scene.say(f"double kill {number + 1}: {struck}")
        return scene.finish()


def roles(scene):
    """What a broker may be to the service, and how the one that is it now is found."""
    cluster = scene.cluster
    shard = partition("acme", scene.partitions)
    return {
        "the leader of acme": lambda: cluster.leader(scene.topics[0], shard),
        "the coordinator of acme's transactions": lambda: cluster.transaction_coordinator(
            f"{scene.prefix}-shard-{shard}"
        ),
        "the group's coordinator": lambda: cluster.coordinator(scene.prefix),
        "the active controller": cluster.controller,
    }


def strike(scene, number, count):
    """Kills brokers in the middle of the work. Returns what was seen."""
    cluster, rng = scene.cluster, scene.rng
    scene.wait_for_syncs(SYNCS_BETWEEN)
    role, find = list(roles(scene).items())[number % len(roles(scene))]
    victims = [find()]
    others = [node for node in cluster.brokers if node not in victims]
    victims += rng.sample(others, count - 1)
    # Anywhere between two polls, or in the middle of one.
    time.sleep(rng.random())
    struck = time.time()
    for node in victims:
        cluster.brokers[node].kill()
    seen = f"broker {victims[0]}, {role}"
    if count > 1:
        seen += f", and broker {' and '.join(map(str, victims[1:]))}"
    if count == 1 and number % 2 == 0:
        # Two of three have to do.
        alone = scene.wait_for_syncs(SYNCS_BETWEEN, since=struck + AWAY_SECONDS_MIN)
        seen += f", {SYNCS_BETWEEN} syncs without it after {alone:.1f} s"
    else:
        # Two that are gone take the quorum with them: nothing can be published until they are back.
        away = OUTAGE_SECONDS if count > 1 and number % 2 == 1 else rng.random() * AWAY_SECONDS_MAX
        time.sleep(away)
        seen += f", away for {away:.1f} s"
    began = time.monotonic()
    cluster.restart(victims)
    cluster.wait_until_in_sync()
    in_sync = time.monotonic() - began
    after = scene.wait_for_syncs(SYNCS_BETWEEN)
    return f"{seen}, in sync after {in_sync:.1f} s, {SYNCS_BETWEEN} syncs {after:.1f} s later"


def moves(stage, rounds):
    """Leaders and coordinators move: by reassignment and election, and because their broker is restarted."""
    with Scene(stage, "moves") as scene:
        scene.running()
        cluster = scene.cluster
        for number in range(rounds):
            moved, all = cluster.move_leaders()
            if moved < math.ceil(all / 2):
                raise Failed(f"only {moved} of {all} leaders moved")
            after = scene.wait_for_syncs(SYNCS_BETWEEN)
            scene.say(
                f"round {number + 1}: {moved} of {all} leaders moved, syncs after {after:.1f} s"
            )
            # Asked for one after the other: the restart before may have moved it.
            for what, find in [
                ("group coordinator", lambda: cluster.coordinator(scene.prefix)),
                ("active controller", cluster.controller),
            ]:
                node = find()
                restart(scene, cluster.brokers[node])
                after = scene.wait_for_syncs(SYNCS_BETWEEN)
                scene.say(f"round {number + 1}: {what} {node} restarted, syncs after {after:.1f} s")
        return scene.finish()


def versions(stage):
    """A first sync, a takeover and a restore."""
    with Scene(stage, "versions") as scene:
        failure = scene.first_sync()
        scene.say("first sync: " + scene.judge())
        scene.change(True)
        first = scene.start()
        scene.wait_for_syncs(SYNCS_BETWEEN)
        second = scene.start()
        deadline = time.monotonic() + ASSIGNED_SECONDS_MAX
        while not second.assigned:
            scene.follow()
            if time.monotonic() > deadline:
                raise Failed(f"{second.name} was assigned nothing in {ASSIGNED_SECONDS_MAX} s")
            time.sleep(0.1)
        scene.wait_for_syncs(SYNCS_BETWEEN)
        # The instance that syncs acme dies. The group decided which one that is.
        killed, left = (first, second) if owner(scene, "acme") is first else (second, first)
        owned = [account for account in ACCOUNTS if owner(scene, account) is killed]
        killed.kill()
        after = scene.wait_for_syncs(SYNCS_BETWEEN, may_end=(killed,))
        scene.say(f"takeover of {' and '.join(owned)}: syncs after {after:.1f} s")
        scene.settle((killed,))
        left.stop()
        ended = (first, second)
        scene.say("takeover: " + scene.judge(ended))
        scene.change(True)
        scene.start()
        after = scene.wait_for_syncs(SYNCS_BETWEEN, may_end=ended)
        scene.say(f"restore: syncs after {after:.1f} s")
        finished = scene.finish()
        scene.judge_subjects()
        if failure:
            raise Failed(
                f"the first sync failed: {failure}\n  everything after it was right: {finished}"
            )
        return finished


def owner(scene, account):
    """The instance that completed the newest sync of the account."""
    return max(scene.instances, key=lambda instance: instance.completed.get(account, [0])[-1])


def hanging_service(stage):
    """Parts wait for syncs. Here the service is stopped, and the wait has to fail."""
    with Scene(stage, "hanging") as scene:
        instance = scene.start()
        scene.wait_for_syncs(1)
        os.killpg(instance.process.supervisor.pid, signal.SIGSTOP)
        try:
            scene.wait_for_syncs(2, HANGING_SECONDS)
        except Failed:
            return f"noticed after {HANGING_SECONDS} s"
        raise Failed("a stopped service goes on to sync, it seems")


def open_transaction(stage):
    """A part ends with a look for open transactions. Here one is open, and the look has to show it."""
    cluster, topic = stage.cluster, f"open-{secrets.token_hex(4)}"
    cluster.create(topic)
    cluster.described({topic})
    producer = Producer(
        {"bootstrap.servers": ",".join(cluster.bootstrap), "transactional.id": topic}
    )
    producer.init_transactions(OPEN_SECONDS_MAX)
    producer.begin_transaction()
    producer.produce(topic, b"left open")
    producer.flush(OPEN_SECONDS_MAX)
    open_now = cluster.open_transactions([topic])
    producer.abort_transaction(OPEN_SECONDS_MAX)
    deadline = time.monotonic() + OPEN_SECONDS_MAX
    while cluster.open_transactions([topic]):
        # The end of a transaction is written after it is acknowledged.
        if time.monotonic() > deadline:
            raise Failed("a transaction that was aborted is taken for open")
        time.sleep(0.1)
    if open_now != [f"{topic}[0]"]:
        raise Failed(f"open are {open_now}, it seems")
