"""Simulated SCIM directories that change by seed, and that remember each version they served.

While an account is *changing*, each walk finds another version than the walk before: a walk begins with
the first page of Users, and until the next one begins the directory holds still. So each completed
sync has read exactly one version, and the checker knows all of them.
"""

import copy
import json
import random
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler

from directory import Http

LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:"
# Rows of a page: few enough that a walk takes several requests.
PAGE_ROWS_MAX = 8
USERS_AT_FIRST = 24
GROUPS_AT_FIRST = 4
# Removals stop here: a directory without any known user is held, which is not tested here.
USERS_MIN = 12
GROUPS_MIN = 3
# Of one version to the next.
CHANGES_MAX = 11
MEMBERS_AT_FIRST_MAX = 8


class Content:
    """Users and groups at one time. The id of a group begins with `g`: judge.py tells members apart by it."""

    def __init__(self, rng):
        self.rng = rng
        self.users = {}
        self.groups = {}
        for number in range(USERS_AT_FIRST):
            self.add_user(number)
        for number in range(GROUPS_AT_FIRST):
            self.add_group(number)

    def add_user(self, number):
        id = f"u{number:03}"
        self.users[id] = {
            "userName": f"{id}@acme.example",
            "displayName": f"Person {number}",
            "title": self.title(),
            "active": self.rng.random() < 0.9,
        }

    def add_group(self, number):
        members = self.rng.sample(sorted(self.users), self.rng.randint(0, MEMBERS_AT_FIRST_MAX))
        self.groups[f"g{number:03}"] = {"displayName": f"Team {number}", "members": set(members)}

    def title(self):
        return f"Title {self.rng.randrange(10_000)}"

    def change(self):
        """The next version: any of the changes that can happen to a directory."""
        before = copy.deepcopy((self.users, self.groups))
        while (self.users, self.groups) == before:
            for _ in range(self.rng.randint(1, CHANGES_MAX)):
                self.change_once()
        # If no group shows a member that there is, memberships may not be shown at all: then they are unknown and stay.
        there = self.users.keys() | self.groups.keys()
        if not any(group["members"] & there for group in self.groups.values()):
            self.groups[min(self.groups)]["members"].add(min(self.users))

    def change_once(self):
        rng = self.rng
        user, group = rng.choice(sorted(self.users)), rng.choice(sorted(self.groups))
        members = self.groups[group]["members"]
        match rng.randrange(20):
            case 0 | 1 | 2 | 3:
                self.users[user]["title"] = self.title()
            case 4:
                self.users[user]["userName"] = f"{user}-{rng.randrange(10_000)}@acme.example"
            case 5 | 6 | 7:
                self.users[user]["active"] = not self.users[user]["active"]
                if rng.random() < 0.5:
                    self.users[user]["title"] = self.title()
            case 8 | 9 | 10:
                # New, or back under an old id.
                number = rng.randrange(3 * USERS_AT_FIRST)
                if f"u{number:03}" not in self.users:
                    self.add_user(number)
            case 11 | 12 if len(self.users) > USERS_MIN:
                del self.users[user]
                # Most servers go on listing removed members.
                if rng.random() < 0.5:
                    for other in self.groups.values():
                        other["members"].discard(user)
            case 13:
                number = rng.randrange(3 * GROUPS_AT_FIRST)
                if f"g{number:03}" not in self.groups:
                    self.add_group(number)
            case 14 if len(self.groups) > GROUPS_MIN:
                del self.groups[group]
                for other in self.groups.values():
                    other["members"].discard(group)
            case 15:
                self.groups[group]["displayName"] = f"Team {rng.randrange(10_000)}"
            case 16 | 17:
                other = rng.choice(sorted(self.groups))
                members.add(other if other > group and rng.random() < 0.25 else user)
            case _:
                if members:
                    members.discard(rng.choice(sorted(members)))

    def plain(self):
        """For the checker: what the server answers, without anything that scimtail makes of it."""
        groups = {
            id: {"displayName": group["displayName"], "members": sorted(group["members"])}
            for id, group in self.groups.items()
        }
        return {"users": copy.deepcopy(self.users), "groups": groups}

    def rows(self, endpoint):
        if endpoint == "Users":
            return [user | head(id, "User") for id, user in sorted(self.users.items())]
        return [
            {
                "displayName": group["displayName"],
                "members": [
                    {"value": member, "type": "Group" if member.startswith("g") else "User"}
                    for member in sorted(group["members"])
                ],
            }
            | head(id, "Group")
            for id, group in sorted(self.groups.items())
        ]


def head(id, kind):
    return {"id": id, "schemas": [SCHEMA + kind]}


class Tenant:
    """The directory of one account."""

    def __init__(self, seed):
        self.lock = threading.Lock()
        self.content = Content(random.Random(seed))
        self.changing = False
        # Versions that the checker has not been told of, the newest last.
        self.unreported = [self.content.plain()]
        # Endpoint and id of each GET that was answered with 404: the only proof of a removal.
        self.denied = set()
        self.walks = 0
        # When the newest version was first served; seconds since 1970, as in the log of scimtail.
        self.served_since = 0.0

    def begin_walk(self):
        self.walks += 1
        if self.changing and self.walks > 1:
            self.content.change()
            self.unreported.append(self.content.plain())
            self.served_since = time.time()

    def take_versions(self):
        with self.lock:
            versions, self.unreported = self.unreported, []
            return versions

    def take_denied(self):
        with self.lock:
            denied, self.denied = sorted(self.denied), set()
            return denied

    def change(self, changing):
        with self.lock:
            self.changing = changing


class Server:
    """Serves one tenant an account, at `/ACCOUNT`, on a port of loopback."""

    def __init__(self, token):
        self.tenants = {}
        self.http = Http(("127.0.0.1", 0), handler(self.tenants, token))
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def base_url(self, account):
        return f"http://127.0.0.1:{self.http.server_port}/{account}"

    def stop(self):
        self.http.shutdown()
        self.http.server_close()


def handler(tenants, token):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self):
            path, _, query = self.path.partition("?")
            query = dict(urllib.parse.parse_qsl(query))
            account, endpoint, *rest = [urllib.parse.unquote(p) for p in path[1:].split("/")] + [""]
            tenant = tenants.get(account)
            if self.headers.get("Authorization") != f"Bearer {token}":
                return self.answer(401, {"schemas": [ERROR], "status": "401"})
            if tenant is not None and endpoint == "ServiceProviderConfig":
                return self.answer(200, {"filter": {"supported": False}})
            if tenant is None or endpoint not in ("Users", "Groups"):
                return self.answer(404, {"schemas": [ERROR], "status": "404"})
            if "filter" in query:
                return self.answer(400, {"schemas": [ERROR], "status": "400"})
            with tenant.lock:
                status, body = answer(tenant, endpoint, rest[0], query)
            self.answer(status, body)

        def answer(self, status, body):
            body = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/scim+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


def answer(tenant, endpoint, id, query):
    """Status and body of a list's page or, with an id, of one resource. The tenant's lock is held."""
    if id:
        for row in tenant.content.rows(endpoint):
            if row["id"] == id:
                return 200, row
        tenant.denied.add((endpoint, id))
        return 404, {"schemas": [ERROR], "status": "404"}
    start = max(int(query.get("startIndex", 1)), 1)
    count = min(int(query.get("count", PAGE_ROWS_MAX)), PAGE_ROWS_MAX)
    if endpoint == "Users" and start == 1:
        tenant.begin_walk()
    rows = tenant.content.rows(endpoint)
    shown = rows[start - 1 : start - 1 + count]
    return 200, {
        "schemas": [LIST],
        "totalResults": len(rows),
        "startIndex": start,
        "itemsPerPage": len(shown),
        "Resources": shown,
    }
