"""Proof that the reader notices what it looks for: right records, and the same ones doctored."""

import topics
from processes import Failed

ACCOUNTS = ["bench"]
MANIFEST = {
    "users": [["u1", "one@acme.example", "Analyst", "Legal", True]]
    + [[f"u{n}", f"{n}@acme.example", "Analyst", "Sales", False] for n in (2, 3)],
    "groups": [["g1", "Legal team", [0, 1]]],
}


def right_events():
    """What a first load with events writes."""
    wanted = topics.baseline_events(MANIFEST, ACCOUNTS)
    return [
        {
            "account": account,
            "event_type": event_type,
            "principal_id": principal,
            "group_id": group,
            "event_id": f"id-{sequence}",
            "sequence": sequence,
        }
        for sequence, (account, event_type, principal, group) in enumerate(wanted, start=1)
    ]


def read(events):
    """What the reader has seen of right state and these events."""
    seen = topics.Seen("doctored")
    seen.state = topics.expected_state(MANIFEST, ACCOUNTS)
    for topic in topics.STATE:
        seen.written[topic] = len(seen.state[topic])
    for event in events:
        topics.count_event(seen, event)
    return seen


def first(things):
    return next(iter(things))


def lose_user(seen):
    del seen.state["users"][first(seen.state["users"])]


def lose_membership(seen):
    seen.state["memberships"].popitem()


def invent_group(seen):
    seen.state["groups"]["bench/Groups/other"] = ("Other team",)


def change_title(seen):
    key = first(seen.state["users"])
    name, _, *rest = seen.state["users"][key]
    seen.state["users"][key] = (name, "Accountant", *rest)


def rename_group(seen):
    seen.state["groups"][first(seen.state["groups"])] = ("Sales team",)


def write_twice(seen):
    seen.written["users"] += 1


def lose_event(events):
    events.pop()


def double_event(events):
    events.append(events[-1] | {"event_id": "id-more", "sequence": len(events) + 1})


def change_type(events):
    events[0]["event_type"] = "user.updated"


def repeat_id(events):
    events[1]["event_id"] = events[0]["event_id"]


def skip_sequence(events):
    events[-1]["sequence"] += 1


OF_STATE = (lose_user, lose_membership, invent_group, change_title, rename_group, write_twice)
OF_EVENTS = (lose_event, double_event, change_type, repeat_id, skip_sequence)


def check():
    if void := judged(read(right_events())):
        raise Failed(f"the reader complains about right records: {void}")
    for doctor in OF_STATE:
        seen = read(right_events())
        doctor(seen)
        noticed(doctor, seen)
    for doctor in OF_EVENTS:
        events = right_events()
        doctor(events)
        noticed(doctor, read(events))


def noticed(doctor, seen):
    if not judged(seen):
        raise Failed(f"the reader does not notice {doctor.__name__}; → its figures prove nothing")


def judged(seen):
    events = topics.baseline_events(MANIFEST, ACCOUNTS)
    return topics.judge(seen, MANIFEST, ACCOUNTS, events).void
