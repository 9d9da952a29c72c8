#!/usr/bin/env python3
"""An organisation that answers by Okta's API as a case says. README.md beside this file describes the format.

    python3 okta_server.py CASE PORT                serves CASE at http://127.0.0.1:PORT
    curl -X POST http://127.0.0.1:PORT/round/2      from now on it answers as in round 2

It prints the account to configure, then each request. CASE is an id in okta.json. Any token is accepted.
"""

import json
import re
from pathlib import Path
from urllib.parse import quote, unquote

from server import UNLIMITED, Answer, Directory, ident, main, numbers, stated

FILES = [Path(__file__).parent / "okta.json"]
API = "/api/v1/"
DEACTIVATED = "DEPROVISIONED"
# Rows of a page at most; scimtail always states a limit.
LIMIT_MAX = 200
LINKS = ['<{self}>; rel="self"', '<{next}>; rel="next"']
# Requests of a minute that each answer states: more than a case takes.
RATE_LIMIT = 100_000
# developer.okta.com/docs/reference/error-codes
CODES = {401: "E0000011", 403: "E0000006", 404: "E0000007", 429: "E0000047"}
OTHER_CODE = "E0000009"


def users(rows):
    """Rows with `2-5` and `7 SUSPENDED` written out as users of that status, ACTIVE if there is none."""
    written_out = []
    for row in rows:
        ids, _, status = row.partition(" ") if isinstance(row, str) else ("", "", "")
        status = status or "ACTIVE"
        written_out += [
            {"id": id, "status": status, "profile": {"login": f"u{id}"}} for id in numbers(ids)
        ] or [row]
    return written_out


def groups(rows):
    """Rows with `g1 Staff: 1 3-5` written out, each with the ids of its members."""
    written_out = []
    for row in rows:
        members = []
        if isinstance(row, dict):
            members = row.get("members", [])
            row = {key: value for key, value in row.items() if key != "members"}
        elif isinstance(row, str) and not row.startswith("{"):
            id, name, members = re.fullmatch(r"(\S+) (.*):(.*)", row).groups()
            row = {"id": id, "type": "OKTA_GROUP", "profile": {"name": name}}
            members = members.split()
        members = [id for member in members for id in numbers(member) or [member]]
        written_out.append((row, members))
    return written_out


def status_of(row):
    return row.get("status") if isinstance(row, dict) else None


def text_of(row):
    """A row as it is sent: texts unchanged, all else as JSON."""
    return row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)


def error(status):
    body = {
        "errorCode": CODES.get(status, OTHER_CODE),
        "errorSummary": "said by the case",
        "errorLink": CODES.get(status, OTHER_CODE),
        "errorId": "oae1",
        "errorCauses": [],
    }
    return Answer(status, body)


class Organisation(Directory):
    """One case, listening on a separate port."""

    BASE, PROVIDER, TYPE = "", "okta", "application/json"
    error = staticmethod(error)

    def answer(self, path, query, headers):
        """The answer to a GET, with the limits that Okta states in each."""
        answer = self.answered(path, query, headers)
        limits = {"Limit": RATE_LIMIT, "Remaining": RATE_LIMIT - 1, "Reset": 1}
        limits = {f"X-Rate-Limit-{name}": str(number) for name, number in limits.items()}
        return Answer(answer.status, answer.body, {**limits, **answer.headers}, answer.type)

    def answered(self, path, query, headers):
        server = self.round["server"]
        if not headers.get("Authorization", "").startswith("SSWS "):
            return error(401)
        # Split first: an id may have a `/`, which is written `%2F`.
        match path.removeprefix(API).split("/") if path.startswith(API) else []:
            case ["users"]:
                wanted = query.get("filter")
                if wanted not in (None, f'status eq "{DEACTIVATED}"'):
                    return error(400)
                name = "deactivated" if wanted else "users"
                rows = users(self.round["users"])
                rows = [row for row in rows if (status_of(row) == DEACTIVATED) == bool(wanted)]
            case ["groups"]:
                name, rows = "groups", [row for row, _ in groups(self.round["groups"])]
            case ["groups", group, "users"]:
                name = f"members/{unquote(group)}"
                rows = self.members(unquote(group))
            case ["users", user]:
                habits = server.get("users", {})
                return get(users(habits.get("get_rows", self.round["users"])), habits, user)
            case ["groups", group]:
                habits = server.get("groups", {})
                rows = groups(habits.get("get_rows", self.round["groups"]))
                return get([row for row, _ in rows], habits, group)
            case _:
                return error(404)
        habits = server.get(name, server.get(name.partition("/")[0], {}))
        said = self.said_instead(name, habits)
        if said is not None:
            return said
        if rows is None:
            return error(404)
        rows = users(habits["rows"]) if "rows" in habits else rows
        rows = [row for row in rows if ident(row) not in habits.get("unlisted", [])]
        return page(rows, habits, f"http://{headers['Host']}{path}", query)

    def members(self, group):
        """The users in a group; None if it is not there. A member that no list shows has nothing but an id."""
        ids = next((ids for row, ids in groups(self.round["groups"]) if ident(row) == group), None)
        listed = {ident(row): row for row in users(self.round["users"])}
        return None if ids is None else [listed.get(id, {"id": id}) for id in ids]


def get(rows, habits, wanted):
    if "get" in habits:
        return stated(habits["get"], error)
    row = next((row for row in rows if ident(row) == unquote(wanted)), None)
    if row is None:
        return stated(habits.get("missing", 404), error)
    return Answer(body=text_of(row))


def page(rows, habits, url, query):
    """A page, with links to itself and to the next one. A cursor is opaque, and has a comma."""
    limit = int(query["limit"])
    if not 1 <= limit <= LIMIT_MAX:
        return error(400)
    number = int(query.get("after", "1").partition(",")[0])
    if limit > habits.get("slow_above", UNLIMITED) and number >= habits.get("slow_from", 1):
        return error(500)
    size = min(limit, habits.get("page", UNLIMITED))
    pages = [rows[start : start + size] for start in range(0, len(rows), size)] or [[]]
    if "pages" in habits:
        pages = [[rows[place - 1] for place in places] for places in habits["pages"]]
    following = number + 1 if number < len(pages) else None
    following = habits.get("leads_to", {}).get(str(number), following)
    targets = {
        "{self}": linked(url, query),
        "{next}": linked(url, {**query, "after": f"{following},a=b"}),
    }
    links = habits.get("link", LINKS)
    links = [link for link in links if "{next}" not in link or following is not None]
    for name, target in targets.items():
        links = [link.replace(name, target) for link in links]
    links = [", ".join(links)] if habits.get("one_line") and links else links
    shown = pages[number - 1] if number <= len(pages) else []
    return Answer(body=f"[{', '.join(map(text_of, shown))}]", headers={"Link": links})


def linked(url, query):
    """The address with this query. A comma is not escaped, as in links of Okta."""
    texts = [f"{name}={quote(value, safe=',')}" for name, value in query.items()]
    return f"{url}?{'&'.join(texts)}"


if __name__ == "__main__":
    main(__doc__, FILES, Organisation)
