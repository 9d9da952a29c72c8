#!/usr/bin/env python3
"""A SCIM server that answers as a case says. README.md beside this file describes the format.

    python3 server.py CASE PORT                     serves CASE at http://127.0.0.1:PORT/scim/v2
    curl -X POST http://127.0.0.1:PORT/round/2      from now on it answers as in round 2

It prints the account to configure, then each request. CASE is an id in cases.json or variants.json. Any
token is accepted.
"""

import argparse
import gzip
import json
import re
import socket
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

FILES = [Path(__file__).parent / name for name in ("cases.json", "variants.json")]
BASE = "/scim/v2"
LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
CORE = "urn:ietf:params:scim:schemas:core:2.0:"
# Rows of a page if neither the request nor the case says how many.
PAGE_ROWS = 100
# The limit if a case states none.
UNLIMITED = 10**9
# Small: every body comes in several.
CHUNK_BYTES = 7


def load(path):
    """The cases of a file, each with the API that serves it."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    return [{"api": content.get("api", "scim"), **case} for case in content["cases"]]


def numbers(text):
    """The ids that `7` or `2-5` stands for; none for other texts."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text) if isinstance(text, str) else None
    return (
        [str(number) for number in range(int(match[1]), int(match[2] or match[1]) + 1)]
        if match
        else []
    )


def plain(rows):
    """Rows with `2-5` written out as the plain users u2 to u5."""
    written_out = []
    for row in rows:
        ids = numbers(row)
        written_out += [{"id": id, "userName": f"u{id}", "active": True} for id in ids] or [row]
    return written_out


def rounds(case):
    """The rounds of a case, each with what it takes over from the one before."""
    now, result = {"users": [], "groups": [], "server": {}, "account": {}}, []
    for said in case["rounds"]:
        now = {**now, **{key: said[key] for key in now if key in said}}
        result.append({**said, **now})
    return result


def ident(row):
    """The id of a row, with the digits of a number as they were written; None if it has none."""
    if isinstance(row, str):
        row = json.loads(row, parse_int=str, parse_float=str)
    ids = (
        [value for key, value in row.items() if key.lower() == "id"]
        if isinstance(row, dict)
        else []
    )
    return str(ids[0]) if ids else None


def without(row, hidden):
    """A row without the attributes of these names. Rows that a case writes as text stay as they are."""
    if not hidden or not isinstance(row, dict):
        return row
    return {key: value for key, value in row.items() if key.lower() not in hidden}


def text_of(row, kind):
    """A row as it is sent: texts unchanged, objects as JSON, with the `schemas` that a case leaves out."""
    if isinstance(row, str):
        return row
    if isinstance(row, dict) and "schemas" not in row:
        row = {"schemas": [CORE + kind[:-1]], **row}
    return json.dumps(row, ensure_ascii=False)


def member_ids(group):
    return {str(member.get("value")) for member in group.get("members") or []}


def lower(names):
    return {name.lower() for name in names}


@dataclass
class Answer:
    status: int = 200
    # An object, or the text as it is sent.
    body: object = ""
    headers: dict = field(default_factory=dict)
    # The Content-Type; None: that of all answers.
    type: str | None = None


def error(status, **more):
    return Answer(
        status, {"schemas": [ERROR], "status": str(status), "detail": "said by the case", **more}
    )


def stated(said, error=error):
    """An answer that a case states itself: a status, or {status, body, headers, type}."""
    said = {"status": said} if isinstance(said, int) else said
    answer = error(said.get("status", 200))
    return Answer(
        answer.status, said.get("body", answer.body), said.get("headers", {}), said.get("type")
    )


class Directory:
    """One case, listening on a separate port."""

    # The path of `base_url`, the provider if the case names none, and the Content-Type.
    BASE, PROVIDER, TYPE = BASE, "generic", "application/scim+json"
    # The answer that goes with a status.
    error = staticmethod(error)

    def __init__(self, case, port=0, log=lambda line: None):
        self.rounds, self.log = rounds(case), log
        self.turn(1)
        self.http = Server(("127.0.0.1", port), handler_of(self))
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def turn(self, number):
        """Answers as in this round, and counts its requests from zero."""
        self.round, self.asked = self.rounds[number - 1], {}

    def account(self, name, token_env, settings):
        """Its `[[account]]` with these settings."""
        url = f"http://127.0.0.1:{self.port}{self.BASE}"
        return account(name, self.PROVIDER, url, token_env, settings)

    def answer(self, path, query, headers):
        """The answer to a GET, or to a POST below the base path."""
        server = self.round["server"]
        if server.get("accept", headers.get("Accept")) != headers.get("Accept"):
            return stated(406)
        if not path.startswith(f"{BASE}/"):
            return stated(404)
        kind, *rest = [unquote(part) for part in path.removeprefix(f"{BASE}/").split("/")]
        if (kind, rest) == ("ServiceProviderConfig", []):
            says = server.get("service_provider_config", 404)
            return stated(says if isinstance(says, int) else {"body": says})
        if kind not in ("Users", "Groups") or len(rest) > 1:
            return stated(404)
        habits = server.get(kind.lower(), {})
        is_redirected = habits.get("slash", False)
        if not rest and is_redirected:
            return Answer(307, headers={"Location": f"{path}/"})
        if not rest or (rest == [""] and is_redirected):
            return self.list(kind, habits, query)
        return self.get(kind, habits, query, rest[0])

    def list(self, kind, habits, query):
        said = self.said_instead(kind, habits)
        if said is not None:
            return said
        if int(query.get("count") or PAGE_ROWS) > habits.get("max_count", UNLIMITED):
            return error(
                400, scimType="invalidValue", detail=f"count is at most {habits['max_count']}"
            )
        rows = plain(self.round[kind.lower()])
        if "filter" in query:
            rows = self.filtered(kind, rows, query["filter"]) if habits.get("filter") else None
            if rows is None:
                return error(400, scimType="invalidFilter")
        total = len(rows) + habits.get("total_plus", 0)
        asked_for = lower(query.get("attributes", "").split(","))
        hidden = lower(habits.get("hide", [])) | (lower(habits.get("on_request", [])) - asked_for)
        rows = [row for row in rows if ident(row) not in habits.get("unlisted", [])]
        start = max(1, int(query.get("startIndex") or 1))
        page = page_of(rows, start, query, habits)
        if not page and start > 1 and "past_end" in habits:
            return stated(habits["past_end"])
        start = 1 if habits.get("one_page") else start
        sent = [text_of(without(row, hidden), kind) for row in page]
        return list_response(sent, start, total, habits)

    def said_instead(self, kind, habits):
        """The answer that the case states for this request to a list; None: the list."""
        said = habits.get("answer")
        if said is None:
            return None
        said = {"status": said} if isinstance(said, int) else said
        self.asked[kind] = self.asked.get(kind, 0) + 1
        after = said.get("after", 0)
        applies = after < self.asked[kind] <= after + said.get("times", UNLIMITED)
        return stated(said, self.error) if applies else None

    def filtered(self, kind, rows, wanted):
        """`members.value eq "ID"` of groups and `groups.value eq "ID"` of users; None: not understood."""
        match = re.match(r'(?i)(members|groups)\.value eq (".*")$', wanted)
        if not match:
            return None
        wanted = json.loads(match[2])
        if kind == "Groups":
            return [row for row in rows if wanted in member_ids(row)]
        groups = [row for row in self.round["groups"] if ident(row) == wanted]
        inside = set().union(*map(member_ids, groups))
        return [row for row in rows if ident(row) in inside]

    def get(self, kind, habits, query, wanted):
        if "get" in habits:
            return stated(habits["get"])
        rows = plain(habits.get("get_rows", self.round[kind.lower()]))
        row = next((row for row in rows if ident(row) == wanted), None)
        if row is None:
            return stated(habits.get("missing", 404))
        asked_for = lower(query.get("attributes", "").split(","))
        hidden = lower(habits.get("on_request", [])) - asked_for
        return Answer(body=text_of(without(row, hidden), kind))


def page_of(rows, start, query, habits):
    """The rows on the page that begins at `start`."""
    if "pages" in habits:
        return [rows[number - 1] for number in habits["pages"].get(str(start), [])]
    if habits.get("one_page"):
        return rows
    count = min(int(query.get("count") or PAGE_ROWS), habits.get("page", UNLIMITED))
    return rows[start - 1 : start - 1 + count]


def list_response(rows, start, total, habits):
    """A ListResponse around rows that are texts already."""
    envelope = {
        "schemas": [LIST],
        "totalResults": total,
        "startIndex": start,
        "itemsPerPage": len(rows),
        **habits.get("envelope", {}),
    }
    fields = [
        f"{json.dumps(key)}: {json.dumps(value)}"
        for key, value in envelope.items()
        if key not in habits.get("leave_out", [])
    ]
    key = json.dumps(habits.get("key", "Resources"))
    if rows:
        fields.append(f"{key}: [{', '.join(rows)}]")
    elif habits.get("empty_page") != "absent":
        fields.append(f"{key}: {'null' if habits.get('empty_page') == 'null' else '[]'}")
    return Answer(body=f"{{{', '.join(fields)}}}")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        # A client that breaks off no longer needs the answer: its walk has ended.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def handler_of(directory):
    """The class that answers the requests to a directory."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body are two writes: otherwise each body waits 40 ms for an acknowledgement.
        disable_nagle_algorithm = True

        def log_message(self, *_):
            pass

        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            directory.log(f"{self.command} {self.path}")
            url = urlsplit(self.path)
            if self.command == "POST" and url.path.startswith("/round/"):
                directory.turn(int(url.path.split("/")[2]))
                return self.send(Answer(204), {})
            query = parse_qs(url.query, keep_blank_values=True)
            query = {name: values[0] for name, values in query.items()}
            answer = directory.answer(url.path, query, self.headers)
            return self.send(answer, directory.round["server"])

        do_POST = do_GET

        def send(self, answer, habits):
            """Sends an answer with the habits of all answers."""
            transfer = habits.get("transfer")
            body = answer.body
            if not isinstance(body, str):
                body = json.dumps(body, ensure_ascii=False)
            data = body.encode(habits.get("encoding", "utf-8"))
            headers = {
                "Content-Type": answer.type or habits.get("type", directory.TYPE),
                **answer.headers,
            }
            if transfer == "gzip":
                data, headers["Content-Encoding"] = gzip.compress(data), "gzip"
            if answer.status == 204:
                data = b""
            elif transfer == "chunked":
                headers["Transfer-Encoding"] = "chunked"
                data = chunked(data)
            else:
                headers["Content-Length"] = str(len(data))
            self.send_response(answer.status)
            for name, values in headers.items():
                for value in values if isinstance(values, list) else [values]:
                    self.send_header(name, value)
            self.end_headers()
            if transfer == "cut":
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                self.wfile.write(data)

    return Handler


def chunked(data):
    chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])


def toml(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value)


def account(name, provider, url, token_env, settings):
    """The [[account]] of a round as TOML: what the case states, and defaults for what it does not."""
    tables = {key: settings[key] for key in ("profile", "guard") if key in settings}
    flat = {
        "name": name,
        "provider": provider,
        "base_url": url,
        "token_env": token_env,
        **{key: value for key, value in settings.items() if key not in tables},
    }
    lines = ["[[account]]", *(f"{key} = {toml(value)}" for key, value in flat.items())]
    for table, values in tables.items():
        lines += [
            f"[account.{table}]",
            *(f"{key} = {toml(value)}" for key, value in values.items()),
        ]
    return "\n".join(lines) + "\n"


def main(described, files, serve):
    """Serves the case that the command line names; `serve`: the class of its directory."""
    parser = argparse.ArgumentParser(
        description=described, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case")
    parser.add_argument("port", type=int)
    given = parser.parse_args()
    case = {case["id"]: case for file in files for case in load(file)}[given.case]
    directory = serve(case, given.port, lambda line: print(line, flush=True))
    print(f"# {case['does']}")
    before = None
    for number, one in enumerate(directory.rounds, 1):
        if one["account"] != before:
            text = directory.account(given.case, "TOKEN", one["account"])
            print(f"\n# from round {number} on\n{text}", flush=True)
        before = one["account"]
    threading.Event().wait()


if __name__ == "__main__":
    main(__doc__, FILES, Directory)
