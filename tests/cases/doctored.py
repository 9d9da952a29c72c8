#!/usr/bin/env python3
"""Shows that agreement.py notices: outputs that agree raise no complaint, and each doctored one does."""

import sys

sys.dont_write_bytecode = True

from agreement import Looked, disagreements
from program import Ended, lines_by_account, outcome

ADVICE = "Groups: 404; → if there are none: groups = false"
NUMBERS = "6 of 10 users would be disabled; the limit is 20 %"

# What the three commands print of one account, with their exit codes, and the events of the sync.
FAILED = {
    "run": f"acme  failed     sync 3: {ADVICE}",
    "check": "acme  generic  http://h\n  FAIL  groups      Groups: 404\n        → if there are none: groups = false",
    "check_code": 78,
    "plan": f"error: acme: {ADVICE}",
    "plan_code": 78,
    "events": 0,
}
HELD = {
    "run": f"acme  held       {NUMBERS}. Nothing was published.\n      look:  scimtail plan acme",
    "check": "acme  generic  http://h\n  ok    users       10 listed\n  HELD  sync        a sync would publish nothing",
    "check_code": 75,
    "plan": f"read 10 users in 0.1 s\nheld: {NUMBERS}. A sync would publish nothing.\n"
    "+0 ~0 !6 -0   6 changes; nothing was written",
    "plan_code": 75,
    "events": 0,
}
COMPLETED = {
    "run": "acme  completed  sync 3   3 users   2 changes   0.1 s\n      note   g-7: members cannot be read",
    "check": "acme  generic  http://h\n  ok    users       3 listed\n  note  groups      g-7: members cannot be read",
    "check_code": 0,
    "plan": "read 3 users in 0.1 s\n+2 ~0 !0 -0   2 changes and 1 silent rewrites; nothing was written",
    "plan_code": 0,
    "events": 2,
}
FIRST = {
    "run": "acme  baseline   sync 1   3 users   state only, no events   0.1 s",
    "check": "acme  generic  http://h\n  ok    users       3 listed",
    "check_code": 0,
    "plan": "first sync: a baseline of 3 users would be written as state, without events\n"
    "+0 ~0 !0 -0   0 changes; nothing was written",
    "plan_code": 0,
    "events": 0,
}
DOCTORED = {
    "run does not name the list": (FAILED, "run", "Groups: 404", "404"),
    "check passes what fails": (FAILED, "check_code", 78, 0),
    "check gives other advice": (FAILED, "check", "groups = false", "paging"),
    "plan passes what fails": (FAILED, "plan_code", 78, 0),
    "plan gives another reason": (FAILED, "plan", "404", "HTTP 404"),
    "plan is not held": (HELD, "plan", "held: ", "would be held: "),
    "plan counts otherwise": (HELD, "plan", "6 of 10", "5 of 10"),
    "check passes what is held": (HELD, "check_code", 75, 0),
    "plan passes what is held": (HELD, "plan_code", 75, 0),
    "check fails what completes": (COMPLETED, "check", "  ok    users", "  FAIL  users"),
    "plan fails what completes": (COMPLETED, "plan_code", 0, 75),
    "plan counts other events": (COMPLETED, "plan", "2 changes", "3 changes"),
    "check does not say what run found": (COMPLETED, "check", "g-7", "g-8"),
    "a first sync has events": (FIRST, "events", 0, 1),
}


def complaints(said):
    of_account = {what: lines_by_account(said[what], {"acme"})["acme"] for what in ("run", "check")}
    looked = Looked(
        Ended(said["check_code"], said["check"], ""),
        of_account["check"],
        Ended(said["plan_code"], said["plan"], ""),
    )
    return list(disagreements(looked, outcome(of_account["run"]), said["events"]))


def main():
    wrong = [
        f"complains without a reason: {found}"
        for said in (FAILED, HELD, COMPLETED, FIRST)
        for found in complaints(said)
    ]
    for name, (said, what, before, after) in DOCTORED.items():
        value = said[what].replace(before, after) if isinstance(before, str) else after
        if not complaints({**said, what: value}):
            wrong.append(f"unnoticed: {name}")
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
