"""The expectations of a case, compared with the result. Each function yields faults, one text each."""

from collections import Counter

import server

# Of many faults of one kind, how many are shown.
EVENTS_SHOWN = 5
USERS_SHOWN = 4


def words(text, wanted):
    """The texts of `says` and `not_says` that do not hold; `|` parts alternatives, upper and lower case are the same."""
    low = " ".join(text.lower().split())
    for said in wanted.get("says", []):
        if not any(part.lower() in low for part in said.split("|")):
            yield f"does not say {said!r}"
    for said in wanted.get("not_says", []):
        if any(part.lower() in low for part in said.split("|")):
            yield f"says {said!r}"


def check(wanted, code, lines, name):
    """The output of `check`."""
    if "passes" in wanted and (code == 0) != wanted["passes"]:
        yield f"check ends with {code}"
    marks = {}
    for line in lines:
        mark, topic = (line.split(None, 2) + ["", ""])[:2]
        if mark in ("ok", "note", "HELD", "FAIL"):
            marks.setdefault(topic, set()).add(mark)
    for topic in wanted.get("ok", []):
        if marks.get(topic) != {"ok"}:
            yield f"check: {topic} is not ok"
    for topic in wanted.get("not_ok", []):
        if not marks.get(topic, set()) & {"note", "HELD", "FAIL"}:
            yield f"check: {topic} is ok"
    for fault in words("\n".join(lines).replace(name, ""), wanted):
        yield f"check {fault}"


def outcome(wanted, outcome, code, name):
    """How the sync ended and what it says; `code`: its recorded reason code, None if that is not known."""
    if outcome.status not in wanted.get("run", "completed").split("|"):
        text = " ".join(outcome.text.split()).removeprefix(name).strip()
        yield f"run: {text[:150] or 'it says nothing'}"
    if wanted.get("reason") and code is not None and code not in wanted["reason"].split("|"):
        yield f"reason {code}, not {wanted['reason']}"
    for fault in words(outcome.text.replace(name, ""), wanted):
        yield f"run {fault}"


def event(record):
    """An event as cases write it."""
    kind = record["event_type"]
    is_group = record["principal_type"] == "group"
    member = "Groups/" if is_group and kind.startswith("membership") else ""
    text = f"{kind} {member}{record['principal_id']}"
    if kind.startswith("membership"):
        text += f" {record['group_id']}"
    if kind.endswith(".updated"):
        text += f" {','.join(sorted(record['changed_attributes']))}"
    return text + (" snapshot" if record["snapshot"] else "")


def events(wanted, records):
    """The events of a round, in any order."""
    have, want = Counter(map(event, records)), Counter(wanted.get("events", []))
    if "no_events" in wanted:
        banned = wanted["no_events"]
        have = Counter({text: count for text, count in have.items() if text.split()[0] in banned})
        want = Counter()
    for what, left in (("missing", want - have), ("wrong", have - want)):
        if left:
            shown = "; ".join(sorted(left.elements())[:EVENTS_SHOWN])
            more = f" … {left.total()} in all" if left.total() > EVENTS_SHOWN else ""
            yield f"{what} events: {shown}{more}"


def values(wanted, records):
    """Attributes in the after-image of the newest event of a user."""
    for who, texts in wanted.get("values", {}).items():
        images = [
            record["user"]["attributes"]
            for record in records
            if record.get("user") and record["principal_id"] == who
        ]
        newest = images[-1] if images else {}
        for path, text in texts.items():
            value = newest.get(path)
            if (value is not None) if text is None else (text not in (value or "")):
                yield f"{path} of {who} is {value}"


def users(wanted, records):
    """The users in the state. `wanted`: id or range → `active`, or fields."""
    want = {who: value for key, value in wanted.items() for who in server.numbers(key) or [key]}
    have = {record["id"]: record for record in records}
    wrong = []
    for who, value in want.items():
        fields = value if isinstance(value, dict) else {"active": value}
        if who not in have:
            wrong.append(f"{who} is missing")
            continue
        for name, expected in fields.items():
            found = have[who].get(name)
            if found != expected:
                wrong.append(f"{name} of {who} is {found}")
    wrong += [f"{who} should not be there" for who in have if who not in want]
    if wrong:
        yield f"users: {', '.join(wrong[:USERS_SHOWN])}{' …' if len(wrong) > USERS_SHOWN else ''}"


def groups(wanted, group_records, membership_records):
    """The groups in the state and their members. `wanted`: id → members, or `*`."""
    have = {record["id"]: {} for record in group_records}
    for record in membership_records:
        prefix = "Groups/" if record["principal_type"] == "group" else ""
        of_group = have.setdefault(record["group_id"], {})
        of_group[prefix + record["principal_id"]] = record.get("direct")
    for group in sorted(have.keys() | wanted.keys()):
        if group not in wanted:
            yield f"group {group} should not be there"
        elif group not in have:
            yield f"group {group} is missing"
        elif wanted[group] != "*":
            yield from members(group, wanted[group], have[group])


def members(group, wanted, have):
    """The members of one group; ` (direct)` and ` (indirect)` state what `direct` has to be."""
    marks = {" (direct)": True, " (indirect)": False}
    want = {}
    for member in wanted:
        mark = next((mark for mark in marks if member.endswith(mark)), "")
        want[member.removesuffix(mark)] = marks.get(mark)
    if have.keys() != want.keys():
        yield f"members of {group}: {', '.join(sorted(have)) or 'none'}"
    elif any(direct is not None and have[who] is not direct for who, direct in want.items()):
        yield f"members of {group}: direct is {have}"
