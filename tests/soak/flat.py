"""Whether what an instance uses is flat: the last third of the rounds after the warm-up against the first third.

Two comparisons. *At rest*: the median of the calm samples, taken when each instance has its share of the shards and
nothing is disturbed, so that all of them are comparable. *At most*: the largest of all samples, in the disturbance too.
"""

from dataclasses import dataclass, replace
from statistics import median

from processes import Failed

# Of the rounds. Caches fill, each kind of disturbance has happened to the allocator, and brokers remove old records.
WARM_UP_SHARE = 0.25
THIRDS = 3
# Calm samples of each third that prove something.
CALM_SAMPLES_MIN = 3


@dataclass(frozen=True)
class Bound:
    """The last third may exceed the first by a share of it, or by an amount that is always permitted."""

    ratio: float
    slack: float

    def permits(self, first, last):
        return last <= max(first * self.ratio, first + self.slack)


# What one sample differs from another by without any leak: the allocator keeps a few pages; a connection is open or not.
AT_REST = {
    "memory_mb": Bound(1.05, 3.0),
    "anonymous_mb": Bound(1.05, 3.0),
    "threads": Bound(1.0, 2),
    "descriptors": Bound(1.0, 4),
}
# Of an instance that has all shards for a moment, while others come and go.
AT_MOST = {
    "memory_mb": Bound(1.15, 10.0),
    "anonymous_mb": Bound(1.15, 10.0),
    "threads": Bound(1.25, 10),
    "descriptors": Bound(1.25, 20),
}
MEASURES = tuple(AT_REST)
# A shorter soak judges instances that are still warming up: their caches fill in the first minutes.
LONG_SECONDS = 600
SHORT_FACTOR = 10


def bounds(seconds):
    """Of a soak of this length: at rest and at most."""
    if seconds >= LONG_SECONDS:
        return AT_REST, AT_MOST
    return tuple(
        {measure: Bound(bound.ratio, bound.slack * SHORT_FACTOR) for measure, bound in of.items()}
        for of in (AT_REST, AT_MOST)
    )


def warm_up(rounds):
    """How many of the rounds are the warm-up."""
    return max(1, round(rounds * WARM_UP_SHARE))


def thirds(samples, rounds):
    """The samples of the first third after the warm-up, and those of the last."""
    first_round = warm_up(rounds) + 1
    length = (rounds - first_round + 1) / THIRDS
    first = [s for s in samples if first_round <= s.round < first_round + max(1, length)]
    last = [s for s in samples if rounds - max(1, length) < s.round <= rounds]
    return first, last


def long_lived(samples, rounds):
    """The names of those that lived in the first third and in the last."""
    first, last = thirds(samples, rounds)
    return sorted({s.name for s in first if s.calm} & {s.name for s in last if s.calm})


def judge(samples, rounds):
    """Judges the samples of one instance. Returns a line about each measure, or raises Failed."""
    first, last = thirds(samples, rounds)
    at_rest, at_most = bounds(samples[-1].at)
    said, complaints = [], []
    for measure in MEASURES:
        rest = [[getattr(s, measure) for s in third if s.calm] for third in (first, last)]
        most = [[getattr(s, measure) for s in third] for third in (first, last)]
        if min(map(len, rest)) < CALM_SAMPLES_MIN:
            counts = " and ".join(str(len(values)) for values in rest)
            raise Failed(
                f"nothing is proven: {counts} calm samples, {CALM_SAMPLES_MIN} are wanted in each third"
            )
        pairs = (
            ("at rest", at_rest[measure], median(rest[0]), median(rest[1])),
            ("at most", at_most[measure], max(most[0]), max(most[1])),
        )
        for what, bound, before, after in pairs:
            line = f"{measure} {what} {before:.4g} → {after:.4g}"
            said.append(line)
            if not bound.permits(before, after):
                complaints.append(f"{line}, not within {bound.ratio} times or {bound.slack} more")
    if complaints:
        raise Failed("grown: " + "; ".join(complaints))
    return "; ".join(said)


def growing(samples, measure, growth):
    """As if the instance had used `growth` more with each round."""
    return [replace(s, **{measure: getattr(s, measure) + growth * s.round}) for s in samples]


def noticed_a_round(samples, rounds, measure):
    """The growth a round from which on it is noticed at rest."""
    first, last = thirds(samples, rounds)
    rest = [[s for s in third if s.calm] for third in (first, last)]
    before, after = (median(getattr(s, measure) for s in third) for third in rest)
    apart = median(s.round for s in rest[1]) - median(s.round for s in rest[0])
    bound = bounds(samples[-1].at)[0][measure]
    return (max(before * bound.ratio, before + bound.slack) - after) / apart
