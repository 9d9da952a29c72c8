"""The vendors: servers with simulated directories, which fail in the ways that servers fail, and change their tokens.

A directory changes with each walk (tests/cluster/tenants.py). A fault strikes the next requests of one account, or all
accounts of one vendor.
"""

import json
import os
import secrets
import socket
import threading
import urllib.parse
from collections import Counter
from http.server import BaseHTTPRequestHandler

from directory import Http
from tenants import ERROR, Tenant, answer

# Requests that a fault strikes, at most: more than one request is tried, so that some syncs fail and some do not.
STRUCK_MAX = {"throttled": 6, "broken": 12, "slow": 4, "cut off": 8}
RETRY_AFTER_SECONDS = 2
# Far below the silence that scimtail bears, and above the interval of an account.
SLOW_SECONDS = 4.0
BACKLOG = 128


def write_secret(file, text):
    """Replaces the file at once: a reader finds the old secret or the new one."""
    new = file.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(text)
    os.replace(new, file)


class Account:
    """What a vendor knows of one account."""

    def __init__(self, name, seed, token_file):
        self.name = name
        self.tenant = Tenant(seed)
        self.token_file = token_file
        self.lock = threading.Lock()
        # The only token that is taken; None: none is.
        self.token = secrets.token_hex(16)
        write_secret(token_file, self.token)
        self.fault, self.left = None, 0

    def strike(self, fault, requests):
        with self.lock:
            self.fault, self.left = fault, requests

    def heal(self):
        self.strike(None, 0)

    def next_fault(self):
        """The fault of the request that is answered now."""
        with self.lock:
            if self.left == 0:
                return None
            self.left -= 1
            return self.fault

    def refuse_tokens(self):
        self.token = None

    def change_token(self, file_first):
        """The vendor takes a new token only. Returns what is left to do: the other half of the change."""
        token = secrets.token_hex(16)
        halves = [
            lambda: write_secret(self.token_file, token),
            lambda: setattr(self, "token", token),
        ]
        if not file_first:
            halves.reverse()
        halves[0]()
        return halves[1]


class LoopbackHttp(Http):
    request_queue_size = BACKLOG


class Vendor:
    """A server on a port of loopback, with an account at `/ACCOUNT`."""

    def __init__(self, port, stopping):
        self.port = port
        self.stopping = stopping
        self.accounts = {}
        # By fault, how many requests it has struck; and all requests.
        self.struck = Counter()
        self.lock = threading.Lock()
        self.connections = set()
        self.http = None
        self.open()

    def base_url(self, account):
        return f"http://127.0.0.1:{self.port}/{account}"

    def open(self):
        """Listens, if it does not yet."""
        if self.http is None:
            self.http = LoopbackHttp(("127.0.0.1", self.port), handler(self))
            threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        """From now on connections are refused, and those that there are break off."""
        http, self.http = self.http, None
        if http is None:
            return
        http.shutdown()
        http.server_close()
        with self.lock:
            connections = list(self.connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                # The client has ended it.
                pass

    def count(self, what):
        with self.lock:
            self.struck[what] += 1


def handler(vendor):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self):
            super().setup()
            with vendor.lock:
                vendor.connections.add(self.connection)

        def finish(self):
            with vendor.lock:
                vendor.connections.discard(self.connection)
            super().finish()

        def do_GET(self):
            path, _, query = self.path.partition("?")
            query = dict(urllib.parse.parse_qsl(query))
            name, endpoint, id, *_ = [urllib.parse.unquote(p) for p in path[1:].split("/")] + [
                "",
                "",
            ]
            account = vendor.accounts.get(name)
            vendor.count("requests")
            if account is None:
                return self.answer(404, error(404))
            if self.headers.get("Authorization") != f"Bearer {account.token}":
                vendor.count("token refused")
                return self.answer(401, error(401))
            fault = account.next_fault()
            if fault is not None:
                vendor.count(fault)
            if fault == "throttled":
                return self.answer(429, error(429), RETRY_AFTER_SECONDS)
            if fault == "broken":
                return self.answer(500, error(500))
            status, body = content(account.tenant, endpoint, id, query)
            if fault == "slow":
                # After the answer is made: a client that has gone by then must not begin a walk.
                vendor.stopping.wait(SLOW_SECONDS)
            self.answer(status, body, cut_off=fault == "cut off")

        def answer(self, status, body, retry_after=None, cut_off=False):
            body = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/scim+json")
            self.send_header("Content-Length", str(len(body)))
            if retry_after is not None:
                self.send_header("Retry-After", str(retry_after))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut_off else body)
            self.close_connection = self.close_connection or cut_off

        def log_message(self, *_):
            pass

    return Handler


def error(status):
    return {"schemas": [ERROR], "status": str(status)}


def content(tenant, endpoint, id, query):
    if endpoint == "ServiceProviderConfig":
        return 200, {"filter": {"supported": False}}
    if endpoint not in ("Users", "Groups"):
        return 404, error(404)
    if "filter" in query:
        return 400, error(400)
    with tenant.lock:
        return answer(tenant, endpoint, id, query)
