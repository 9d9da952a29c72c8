"""Simulated SCIM directories: readers are compared with their contents.

One HTTP server serves several directories, each below a separate path. They speak as much of
SCIM 2.0 as scimtail's profile `generic` asks for: lists by pages, and resources by id.
"""

import copy
import json
import random
import sys
import threading
import urllib.parse
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
# Small: every directory has several pages.
PAGE_ROWS_MAX = 7


class Directory:
    """Users and groups of one account, as SCIM resources by id."""

    def __init__(self):
        self.lock = threading.Lock()
        self.users = {}
        self.groups = {}
        self.now = datetime(2026, 1, 1, 8, 0, 0, 250_000, tzinfo=timezone.utc)

    def put_user(self, id, **attributes):
        """Create a user, or change some attributes; None takes one away."""
        with self.lock:
            self._put(self.users, id, attributes)

    def put_group(self, id, **attributes):
        with self.lock:
            new = {} if id in self.groups else {"members": []}
            self._put(self.groups, id, new | attributes)

    def join(self, group, member, type="User"):
        with self.lock:
            members = self.groups[group]["members"]
            if member not in [m["value"] for m in members]:
                members.append({"value": member, "type": type})

    def leave(self, group, member):
        with self.lock:
            self._leave(group, member)

    def remove_user(self, id):
        """As well-behaved servers do: from its groups, too."""
        with self.lock:
            del self.users[id]
            for group in self.groups:
                self._leave(group, id)

    def remove_group(self, id):
        with self.lock:
            del self.groups[id]
            for group in self.groups:
                self._leave(group, id)

    def access(self):
        """All memberships: (type, member, group), sorted."""
        with self.lock:
            return sorted(
                (member["type"], member["value"], id)
                for id, group in self.groups.items()
                for member in group["members"]
            )

    def list(self, kind):
        with self.lock:
            return copy.deepcopy([resource for _, resource in sorted(getattr(self, kind).items())])

    def _put(self, resources, id, attributes):
        self.now += timedelta(milliseconds=61_001)
        resource = dict(resources.get(id, {"id": id, "meta": {"created": instant(self.now)}}))
        for name, value in attributes.items():
            resource[name] = value
        resource["meta"] = {**resource["meta"], "lastModified": instant(self.now)}
        resources[id] = {name: value for name, value in resource.items() if value is not None}

    # As some servers do, members that come and go leave a group's meta.lastModified alone.
    def _leave(self, group, member):
        members = self.groups[group]["members"]
        members[:] = [m for m in members if m["value"] != member]


def instant(time):
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"


def instant_of_millis(millis):
    return instant(datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=millis))


class Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        # A client that is killed breaks off.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Server:
    """Serves directories by account name on a port of loopback."""

    def __init__(self, token):
        self.directories = {}
        self.token = token
        self.http = Http(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def add(self, account):
        self.directories[account] = Directory()
        return self.directories[account]

    def base_url(self, account):
        return f"http://127.0.0.1:{self.http.server_port}/{account}/scim/v2"

    def _handler(server):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path, _, query = self.path.partition("?")
                parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
                if self.headers.get("Authorization") != f"Bearer {server.token}":
                    return self.answer(401, {"detail": "no such token"})
                directory = server.directories.get(parts[0])
                if (
                    directory is None
                    or parts[1:3] != ["scim", "v2"]
                    or parts[3:4] not in (["Users"], ["Groups"])
                ):
                    return self.answer(404, {"detail": "no such endpoint"})
                rows = directory.list(parts[3].lower())
                if len(parts) == 4:
                    return self.answer(200, page(rows, dict(urllib.parse.parse_qsl(query))))
                found = [row for row in rows if row["id"] == parts[4]]
                return (
                    self.answer(200, found[0])
                    if found
                    else self.answer(404, {"detail": "no such resource"})
                )

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


def page(rows, query):
    start = max(int(query.get("startIndex", 1)), 1)
    count = min(int(query.get("count", PAGE_ROWS_MAX)), PAGE_ROWS_MAX)
    shown = rows[start - 1 : start - 1 + count]
    return {
        "schemas": [LIST],
        "totalResults": len(rows),
        "startIndex": start,
        "itemsPerPage": len(shown),
        "Resources": shown,
    }


# The records of a resource: the contract, written down a second time.

# The default attributes that go to `attributes`, not to a separate field.
TEXTS = ["title", "userType"]
LISTS = ["emails", "entitlements", "roles"]
ENTERPRISE_TEXTS = ["costCenter", "department", "division", "employeeNumber", "organization"]


def user_fields(resource):
    """The fields of a User, times as text."""
    attributes = {name: resource[name] for name in TEXTS if name in resource}
    attributes |= {name: sorted_list(resource[name]) for name in LISTS if resource.get(name)}
    enterprise = resource.get(ENTERPRISE, {})
    attributes |= {
        f"{ENTERPRISE}:{name}": enterprise[name] for name in ENTERPRISE_TEXTS if name in enterprise
    }
    if "manager" in enterprise:
        attributes[f"{ENTERPRISE}:manager.value"] = enterprise["manager"]["value"]
    emails = resource.get("emails", [])
    best = sorted(
        emails, key=lambda e: (not e.get("primary", False), e.get("type") != "work", e["value"])
    )
    return {
        "id": resource["id"],
        "user_name": resource.get("userName"),
        "display_name": resource.get("displayName"),
        "active": resource.get("active"),
        "external_id": resource.get("externalId"),
        "email": best[0]["value"] if best else None,
        "created": resource["meta"]["created"],
        "last_modified": resource["meta"]["lastModified"],
        "attributes": {name: canonical(value) for name, value in attributes.items()},
    }


def group_fields(resource):
    return {
        "id": resource["id"],
        "display_name": resource.get("displayName"),
        "external_id": resource.get("externalId"),
        "created": resource["meta"]["created"],
        "last_modified": resource["meta"]["lastModified"],
        "attributes": {},
    }


def canonical(value):
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def sorted_list(elements):
    return sorted(elements, key=canonical)


# The changes in the directories.


def populate(directory, mail):
    """Users and groups with everything that readers stumble over: nulls, other scripts, quotes,
    many attributes, ids that do not fit into a key as they are."""
    directory.put_user("bare", userName="bare")
    directory.put_user("off", userName=f"off@{mail}", displayName="Off", active=False)
    directory.put_user(
        "full",
        userName=f"full@{mail}",
        displayName="Ærøskøbing Łukasz 日本語 🙂",
        active=True,
        externalId="x-0001",
        title='Head of "Quotes" \\ Backslashes\tand\ntabs',
        userType="Employee",
        emails=[
            {"value": f"home@{mail}", "type": "home"},
            {"value": f"full@{mail}", "type": "work", "primary": True},
        ],
        roles=[{"value": f"role-{n}", "type": "x" * n} for n in range(40)],
        entitlements=[{"value": "Ünïcode"}, {"value": "plain"}],
        **{
            ENTERPRISE: {
                "department": "Research & Development",
                "organization": "Acme GmbH",
                "division": "É",
                "costCenter": "4711",
                "employeeNumber": "000042",
                "manager": {"value": "bare"},
            }
        },
    )
    directory.put_user("slash/and%percent", userName=f"odd@{mail}", active=True)
    for n in range(20):
        directory.put_user(
            f"u-{n:03}", userName=f"user{n}@{mail}", displayName=f"User {n}", active=n % 7 != 3
        )
    for n in range(6):
        directory.put_group(f"g-{n}", displayName=f"Group {n}" if n else "Groupe n° 0 「零」")
        for user in range(n, 20, n + 2):
            directory.join(f"g-{n}", f"u-{user:03}")
    directory.put_group("nameless")
    directory.join("g-0", "full")
    directory.join("g-0", "slash/and%percent")
    directory.join("g-1", "g-0", "Group")


def change(directory, mail):
    """Everything but removals of principals."""
    directory.put_user("new", userName=f"new@{mail}", displayName="New", active=True)
    directory.put_user("new-off", userName=f"new-off@{mail}", active=False)
    directory.put_user("bare", displayName="No longer bare", title="Title")
    directory.put_user(
        "full",
        externalId=None,
        title=None,
        displayName="Łukasz 🙃",
        emails=[{"value": f"z@{mail}"}],
    )
    directory.put_user("u-000", active=False)
    directory.put_user("u-003", active=True)
    directory.put_user("off", active=True, displayName="On")
    directory.put_group("g-new", displayName="New group")
    directory.put_group("g-2", displayName="Renamed group")
    directory.join("g-new", "new")
    directory.join("g-new", "g-2", "Group")
    directory.leave("g-0", "full")
    directory.leave("g-1", "g-0")


def remove(directory, _mail):
    directory.remove_user("u-004")
    directory.remove_user("slash/and%percent")
    directory.remove_user("new")
    directory.remove_group("g-5")
    directory.leave("g-new", "g-2")


def bring_back(directory, mail):
    """A user is back under the old id: a value follows a tombstone."""
    directory.put_user("u-004", userName=f"user4@{mail}", active=True)
    directory.put_group("g-5", displayName="Group 5, again")
    directory.join("g-5", "u-004")


def shake(directory, mail, rng: random.Random, times):
    """Random changes of few users and groups: they come and go."""
    for _ in range(times):
        users, groups = sorted(directory.users), sorted(directory.groups)
        user, group = f"u-{rng.randrange(80):02}", f"g-{rng.randrange(10)}"
        match rng.randrange(10):
            case 0 | 1 if user in users:
                directory.put_user(
                    user, displayName=f"Name {rng.randrange(1000)}", active=rng.random() < 0.8
                )
            case 2 if user in users:
                directory.remove_user(user)
            case 3 if group in groups and rng.random() < 0.2:
                directory.remove_group(group)
            case 4 if group in groups:
                directory.put_group(group, displayName=f"Group {rng.randrange(1000)}")
            case 5 | 6 if group in groups and directory.groups[group]["members"]:
                directory.leave(group, rng.choice(directory.groups[group]["members"])["value"])
            case 7 if group in groups:
                directory.join(group, rng.choice(groups), "Group")
            case 8 | 9 if group in groups and users:
                directory.join(group, rng.choice(users))
            case _:
                if user not in users:
                    directory.put_user(user, userName=f"{user}@{mail}", active=True)
                elif group not in groups:
                    directory.put_group(group, displayName=group)
