"""A SCIM directory that can be made to misbehave while a service reads it."""

import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler

from directory import Http

LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:"
USERS = 20
PAGE_ROWS = 100
# Below the time that scimtail gives one request: each answer arrives, and a walk takes hours.
SLOW_SECONDS = 15
SLOW_ROWS = 1
SLOW_TOTAL = 2_000


class Directory:
    """Users and one group. `mode` says in which way it misbehaves, see `MODES`."""

    MODES = ("well", "failing", "short", "slow", "lookups fail")

    def __init__(self, token):
        self.token = token
        self.mode = "well"
        self.lock = threading.Lock()
        self.users = {f"u{number:02}": f"Person {number}" for number in range(USERS)}
        self.http = Http(("127.0.0.1", 0), handler(self))
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.http.server_port}/scim/v2"

    def misbehave(self, mode):
        assert mode in self.MODES, mode
        self.mode = mode

    def lose(self, count):
        with self.lock:
            for id in sorted(self.users)[:count]:
                del self.users[id]

    def grow(self, title):
        """A new user with this title."""
        with self.lock:
            self.users["u99"] = title

    def rows(self, endpoint):
        with self.lock:
            users = dict(self.users)
        if endpoint == "Users":
            return [
                {"id": id, "schemas": [SCHEMA + "User"], "userName": id, "title": title, "active": True}
                for id, title in users.items()
            ]
        members = [{"value": id, "type": "User"} for id in users]
        return [{"id": "g1", "schemas": [SCHEMA + "Group"], "displayName": "Team", "members": members}]

    def answer(self, endpoint, id, query):
        """Status and body."""
        refused = {"schemas": [ERROR], "status": "500"}
        if self.mode == "failing" or (self.mode == "lookups fail" and id):
            return 500, refused
        if "filter" in query:
            return 400, {"schemas": [ERROR], "status": "400"}
        rows = self.rows(endpoint)
        if id:
            found = [row for row in rows if row["id"] == id]
            return (200, found[0]) if found else (404, {"schemas": [ERROR], "status": "404"})
        start = max(int(query.get("startIndex", 1)), 1)
        count = min(int(query.get("count", PAGE_ROWS)), PAGE_ROWS)
        total = len(rows)
        if self.mode == "slow":
            time.sleep(SLOW_SECONDS)
            count, total = SLOW_ROWS, SLOW_TOTAL
        if self.mode == "short" and endpoint == "Users":
            total += 3
        shown = rows[start - 1 : start - 1 + count]
        return 200, {
            "schemas": [LIST],
            "totalResults": total,
            "startIndex": start,
            "itemsPerPage": len(shown),
            "Resources": shown,
        }


def handler(directory):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path, _, query = self.path.partition("?")
            endpoint, *rest = path.removeprefix("/scim/v2/").split("/") + [""]
            if self.headers.get("Authorization") != f"Bearer {directory.token}":
                return self.answer(401, {"schemas": [ERROR], "status": "401"})
            if endpoint not in ("Users", "Groups"):
                return self.answer(404, {"schemas": [ERROR], "status": "404"})
            query = dict(urllib.parse.parse_qsl(query))
            self.answer(*directory.answer(endpoint, urllib.parse.unquote(rest[0]), query))

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
