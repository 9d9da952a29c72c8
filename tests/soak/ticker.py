"""What happens beside the rounds, at a pace of its own."""

import threading
import traceback

from processes import Failed

# The slowest thing that a tick does is a request for a page.
STOP_SECONDS_MAX = 60


class Ticker:
    """Calls a function again and again on a thread of its own, until it is stopped."""

    def __init__(self, name, seconds, function):
        self.name, self.seconds, self.function = name, seconds, function
        self.stopping = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self.run, name=name, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while not self.stopping.wait(self.seconds):
                self.function()
        except Exception:
            self.failure = traceback.format_exc()

    def check(self):
        if self.failure:
            raise Failed(f"{self.name} broke down: {self.failure}")

    def stop(self):
        self.stopping.set()
        self.thread.join(STOP_SECONDS_MAX)
