"""The figures of a soak, as tables."""

from collections import Counter

import flat
import happenings
from processes import Failed
from weather import FAULTS

# What a vendor counts by request; a refused connection is no request.
STRUCK = set(FAULTS) - {"connection refused", "token changed"}
COLUMNS = (
    ("memory, MB", "memory_mb"),
    ("anonymous, MB", "anonymous_mb"),
    ("threads", "threads"),
    ("descriptors", "descriptors"),
    ("CPU, s", "cpu_s"),
)
WARNINGS_SHOWN = 12
LINE_MAX = 200


def show(soak):
    samples, rounds = soak.measurements.samples, soak.rounds
    for name in flat.long_lived(samples, rounds):
        own = [sample for sample in samples if sample.name == name]
        print(f"\n     {name}:")
        print(
            "     "
            + f"{'':14}"
            + "".join(f"{title:>15}" for title in ("start", "warmed up", "end", "max"))
        )
        for title, measure in COLUMNS:
            row = "".join(f"{value:15.1f}" for value in figures(own, rounds, measure))
            print(f"     {title:14}{row}")
    records = soak.records
    print(
        f"\n     {soak.elapsed() / 60:.1f} minutes, {rounds} rounds: {records['completed']} completed syncs, "
        f"{records['events']} events, {records['records']} records, {records['transactions']} transactions, "
        f"{len(soak.fleet.lives)} lives of instances"
    )
    table("what happened", soak.counts)
    table("faults made", soak.weather.made)
    table("requests struck", struck(soak) + Counter({"registry refused": soak.registry.refused}))
    pages = Counter()
    for (_, page, outcome), count in soak.onlooker.answers.items():
        pages[f"{page} {outcome}"] += count
    table("pages, by answer", pages)
    table("warnings", dict(soak.fleet.said("warnings").most_common(WARNINGS_SHOWN)))
    table("errors", soak.fleet.said("errors"))
    print(flush=True)


def figures(samples, rounds, measure):
    """At the start, after the warm-up, at the end, and at most."""
    values = [getattr(sample, measure) for sample in samples]
    warm = next(s for s in samples if s.round > flat.warm_up(rounds))
    return values[0], getattr(warm, measure), values[-1], max(values)


def table(title, counts):
    print(f"\n     {title}:")
    for what, count in sorted(counts.items()):
        print(f"     {count:8} {what[:LINE_MAX]}")


def struck(soak):
    return sum((vendor.struck for vendor in soak.vendors), Counter())


def judge_counts(soak):
    """What never happened proves nothing."""
    missing = [name for name in soak.things if not soak.counts[name]]
    missing += [fault for fault in FAULTS if not soak.weather.made[fault]]
    missing += [fault for fault in STRUCK if not struck(soak)[fault]]
    # A service in peace asks the registry every half minute: a first change may come too late to be noticed.
    changes = soak.counts["the registry's password changes"]
    if changes > 1 and not soak.registry.refused:
        missing.append("the registry refuses an old password")
    if missing:
        raise Failed(f"it never happened: {', '.join(sorted(set(missing)))}")
    left_out = [name for name in happenings.ALL if name not in soak.things]
    said = f"{len(soak.things)} things, {len(FAULTS)} faults"
    return said + (f"; left out: {', '.join(left_out)}" if left_out else "")
