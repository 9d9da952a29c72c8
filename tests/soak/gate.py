"""The schema registry behind a gate that asks for a password (Basic authentication), as companies run it.

The registry keeps its schemas in a file, so that it has them after a restart: an empty one gives new ids.
"""

import base64
import http.client
import secrets
import threading
from http.server import BaseHTTPRequestHandler

import builds
import services as real
from processes import Process
from vendors import LoopbackHttp, write_secret

USER = "scimtail"
HEAP_MIB = 256
READY_SECONDS_MAX = 120
STOP_SECONDS_MAX = 30
FORWARD_SECONDS_MAX = 30
# It does not keep twenty connections to its file, as it would by default.
CONNECTIONS = 2
# Its default, 5 s, is too short for a machine that does other things too.
ACQUISITION_SECONDS_MAX = 60


class Registry:
    """The process, and its gate. `port` and `gate_port` stay the same after a restart."""

    def __init__(self, directory, port, gate_port, password_file):
        self.directory = directory / "apicurio"
        self.directory.mkdir()
        self.port, self.password_file = port, password_file
        self.process = None
        self.refused = 0
        self.change_password()()
        self.url = f"http://127.0.0.1:{gate_port}{real.CCOMPAT}"
        # Without the gate.
        self.inner_url = f"http://127.0.0.1:{port}{real.CCOMPAT}"
        self.http = LoopbackHttp(("127.0.0.1", gate_port), handler(self))
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def begin(self):
        """Starts the process; it is not ready yet."""
        runner = next((builds.services() / "apicurio").glob("*-runner.jar"))
        settings = {
            "quarkus.http.host": "127.0.0.1",
            "quarkus.http.port": self.port,
            "quarkus.datasource.jdbc.initial-size": CONNECTIONS,
            "quarkus.datasource.jdbc.min-size": CONNECTIONS,
            "quarkus.datasource.jdbc.acquisition-timeout": f"{ACQUISITION_SECONDS_MAX}s",
        }
        options = [f"-D{name}={value}" for name, value in settings.items()]
        command = [*real.java(self.directory, HEAP_MIB), *options, "-jar", runner]
        database = f"jdbc:h2:file:{self.directory / 'registry'}"
        environment = {"REGISTRY_DATASOURCE_URL": database}
        self.process = Process("apicurio", command, self.directory, **environment)

    def wait_until_ready(self):
        subjects = f"{self.inner_url}/subjects"
        self.process.wait_until(lambda: real.answers(subjects), READY_SECONDS_MAX)

    def terminate(self):
        """SIGTERM."""
        self.process.supervisor.stdin.close()
        self.process.finish(STOP_SECONDS_MAX, codes=(0, 143))
        self.process = None

    def change_password(self, file_first=True):
        """The gate takes a new password only. Returns what is left to do: the other half of the change."""
        password = secrets.token_hex(16)
        shown = base64.b64encode(f"{USER}:{password}".encode()).decode()
        halves = [
            lambda: write_secret(self.password_file, password),
            lambda: setattr(self, "shown", f"Basic {shown}"),
        ]
        if not file_first:
            halves.reverse()
        halves[0]()
        return halves[1]

    def stop(self):
        self.http.shutdown()
        self.http.server_close()
        if self.process is not None:
            self.process.kill()


def handler(registry):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_any(self):
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            if self.headers.get("Authorization") != registry.shown:
                registry.refused += 1
                return self.answer(401, "text/plain", b"")
            inner = http.client.HTTPConnection(
                "127.0.0.1", registry.port, timeout=FORWARD_SECONDS_MAX
            )
            passed_on = ("Accept", "Content-Type")
            headers = {name: self.headers[name] for name in passed_on if name in self.headers}
            try:
                inner.request(self.command, self.path, body, headers)
                response = inner.getresponse()
                self.answer(response.status, response.headers["Content-Type"], response.read())
            except (OSError, http.client.HTTPException):
                # As a proxy answers whose server is away.
                self.answer(502, "text/plain", b"")
            finally:
                inner.close()

        do_GET = do_POST = do_PUT = do_DELETE = do_any

        def answer(self, status, media_type, body):
            self.send_response(status)
            self.send_header("Content-Type", media_type or "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler
