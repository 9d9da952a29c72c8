"""What happens to the service in a long life, apart from its directories. Each returns a line about what it saw."""

import random
import secrets
import time
from dataclasses import dataclass

from cluster import Cluster
from fleet import GUEST, ROLES, USER, Fleet
from gate import Registry
from vendors import write_secret

# Anything but the steady one may end.
MAY_END = ROLES[1:]
# How long something stays away, or stays, at most.
AWAY_SECONDS_MAX = 4.0
STAY_SECONDS_MAX = 6.0
# Between the two halves of a change of a secret: for a moment one side is ahead.
HALVES_SECONDS_MAX = 1.5


@dataclass
class Stage:
    """All that things happen to."""

    cluster: Cluster
    registry: Registry
    fleet: Fleet
    rng: random.Random

    def pause(self, seconds_max):
        """Waits a moment of a length that the seed decides. Returns the seconds."""
        seconds = self.rng.random() * seconds_max
        time.sleep(seconds)
        return seconds


def instance_terminated(stage):
    return restarted(stage, stage.fleet.terminate)


def instance_killed(stage):
    return restarted(stage, stage.fleet.kill)


def restarted(stage, end):
    role = stage.rng.choice(MAY_END)
    end(role)
    away = stage.pause(AWAY_SECONDS_MAX)
    member = stage.fleet.start(role)
    after = stage.fleet.wait_until_assigned(member)
    return f"{role} was away for {away:.1f} s, and has shards after {after:.1f} s"


def instance_visits(stage):
    member = stage.fleet.start(GUEST)
    after = stage.fleet.wait_until_assigned(member)
    stay = stage.pause(STAY_SECONDS_MAX)
    stage.fleet.terminate(GUEST)
    return f"{GUEST} has shards after {after:.1f} s, and leaves {stay:.1f} s later"


def broker_terminated(stage):
    return broker_restarted(stage, lambda broker: broker.terminate())


def broker_killed(stage):
    return broker_restarted(stage, lambda broker: broker.kill())


def broker_restarted(stage, end):
    node = stage.rng.choice(sorted(stage.cluster.brokers))
    end(stage.cluster.brokers[node])
    away = stage.pause(AWAY_SECONDS_MAX)
    stage.cluster.restart([node])
    after = stage.cluster.wait_until_in_sync()
    stage.fleet.follow()
    return f"broker {node} was away for {away:.1f} s, in sync {after:.1f} s after its start"


def registry_restarted(stage):
    began = time.monotonic()
    stage.registry.terminate()
    stage.registry.begin()
    stage.registry.wait_until_ready()
    return f"away for {time.monotonic() - began:.1f} s"


def kafka_password_changed(stage):
    password = secrets.token_hex(16)
    halves = {
        "file": lambda: write_secret(stage.fleet.password_file, password),
        "Kafka": lambda: stage.cluster.change_password(USER, password),
    }
    return in_any_order(stage, halves)


def registry_password_changed(stage):
    file_first = stage.rng.random() < 0.5
    other_half = stage.registry.change_password(file_first)
    gap = stage.pause(HALVES_SECONDS_MAX)
    other_half()
    return f"{'file' if file_first else 'registry'} first, the other {gap:.1f} s later"


def in_any_order(stage, halves):
    names = sorted(halves)
    stage.rng.shuffle(names)
    halves[names[0]]()
    gap = stage.pause(HALVES_SECONDS_MAX)
    halves[names[1]]()
    return f"{names[0]} first, {names[1]} {gap:.1f} s later"


def accounts_leave_and_return(stage):
    fleet = stage.fleet
    before = fleet.reloads()
    fleet.followed_file.unlink()
    left = followed(stage, before)
    before = fleet.reloads()
    fleet.write_followed()
    returned = followed(stage, before)
    return f"gone {left}, back {returned}"


def followed(stage, before):
    """Tells the instances by SIGHUP, or lets them find out."""
    told = stage.rng.random() < 0.5
    if told:
        for member in stage.fleet.running.values():
            member.hang_up()
    after = stage.fleet.wait_until_reloaded(before)
    return f"after {after:.1f} s{' (SIGHUP)' if told else ''}"


ALL = {
    "an instance is terminated": instance_terminated,
    "an instance is killed": instance_killed,
    "an instance visits": instance_visits,
    "a broker is terminated": broker_terminated,
    "a broker is killed": broker_killed,
    "the registry is restarted": registry_restarted,
    "Kafka's password changes": kafka_password_changed,
    "the registry's password changes": registry_password_changed,
    "accounts leave and return": accounts_leave_and_return,
}


class Deck:
    """Cards in an order of the seed: each comes before any comes again."""

    def __init__(self, cards, rng):
        self.cards, self.rng, self.left = sorted(cards), rng, []

    def draw(self):
        if not self.left:
            self.left = self.rng.sample(self.cards, len(self.cards))
        return self.left.pop()
