"""`check`, `plan` and `run` say the same of a directory, in the same words.

`check` and `plan` are run before each sync, on the same answers of the server. What they said then is
compared with what the sync did.
"""

import re
from dataclasses import dataclass

from program import Ended

# How much of a text a fault shows.
SHOWN = 160
# The exit code of a held account.
HELD_CODE = 75


@dataclass
class Looked:
    """What `check` and `plan` said of one account before a sync."""

    check: Ended
    check_lines: list
    plan: Ended


def squeezed(text):
    """Without what differs by layout only: blanks, line ends, and the marks between a reason and its remedy."""
    return re.sub(r"[\s;→]+", "", text)


def disagreements(looked, outcome, published):
    """Differences between `check` or `plan` and the sync; `published`: its events."""
    if outcome.status == "failed":
        yield from of_failed(looked, outcome.reason)
    elif outcome.status == "held":
        yield from of_held(looked, outcome.reason)
    elif outcome.status == "completed":
        yield from of_completed(looked, outcome.notes, published)


def of_failed(looked, reason):
    if not re.search(r"\b(Users|Groups)\b", reason):
        yield f"run names neither Users nor Groups: {reason[:SHOWN]}"
    for command, ended, said in (
        ("check", looked.check, "\n".join(looked.check_lines)),
        ("plan", looked.plan, looked.plan.text),
    ):
        if ended.code == 0:
            yield f"run fails, {command} ends with 0"
        if squeezed(reason) not in squeezed(said):
            yield f"{command} does not say what run says: {reason[:SHOWN]}"


def of_held(looked, reason):
    said = looked.plan.text
    if not re.search(r"^held\b", said, re.M):
        yield "run is held, plan does not say so"
    if squeezed(reason.rstrip(".")) not in squeezed(said):
        yield f"plan does not say what run says: {reason[:SHOWN]}"
    for command, ended in (("check", looked.check), ("plan", looked.plan)):
        if ended.code != HELD_CODE:
            yield f"run is held, {command} ends with {ended.code}"


def of_completed(looked, notes, published):
    failures = [line.strip() for line in looked.check_lines if line.split()[:1] == ["FAIL"]]
    if failures:
        yield f"run completes, check says: {failures[0][:SHOWN]}"
    if looked.plan.code != 0:
        yield f"run completes, plan ends with {looked.plan.code}: {looked.plan.errors.strip()[:SHOWN]}"
    elif (planned := planned_events(looked.plan.out)) != published:
        yield f"plan counts {planned} events, run publishes {published}"
    said = squeezed("\n".join(looked.check_lines))
    for note in notes:
        if squeezed(note) not in said:
            yield f"check does not say what run notes: {note[:SHOWN]}"


def planned_events(said):
    """The events that `plan` counts in its last line; None if it has no such line."""
    if re.search(r"^first sync: ", said, re.M):
        # Written as state, without events.
        return 0
    counts = re.findall(r"^\+\d+ ~\d+ !\d+ -\d+   (\d+) changes?\b", said, re.M)
    return int(counts[-1]) if counts else None
