"""A person and a Prometheus that look at the HTTP listeners of all instances: they hold memory and descriptors too."""

import contextlib
import http.client
import itertools
from collections import Counter

from fleet import HTTP_SECONDS_MAX

PAGES = ("/metrics", "/status", "/", "/live")
# Looks for which a live page stays open.
LIVE_LOOKS = 6
# Live pages of an instance at once.
LIVE_MAX = 2
# Of a page that is live: enough for its first event.
LIVE_BYTES = 256


class Onlooker:
    def __init__(self, fleet):
        self.fleet = fleet
        self.looks = itertools.count()
        # By role, page and status (or the error), how often.
        self.answers = Counter()
        # By instance, what is open: the connection, and the look at which it is closed.
        self.live = {}

    def look(self):
        """One look at each instance that runs."""
        number = next(self.looks)
        for member in list(self.fleet.running.values()):
            for page in PAGES[:-1]:
                self.answers[(member.role, page, self.ask(member, page))] += 1
            if number % (LIVE_LOOKS // LIVE_MAX) == 0:
                connection, outcome = open_live(member)
                self.answers[(member.role, "/live", outcome)] += 1
                self.live[connection] = number + LIVE_LOOKS
        for connection in [c for c, until in self.live.items() if until <= number]:
            connection.close()
            del self.live[connection]

    def ask(self, member, page):
        connection = http.client.HTTPConnection(member.address, timeout=HTTP_SECONDS_MAX)
        with contextlib.closing(connection):
            return outcome_of(lambda: answer(connection, page))

    def close(self):
        for connection in self.live:
            connection.close()
        self.live.clear()


def answer(connection, page):
    connection.request("GET", page)
    response = connection.getresponse()
    response.read()
    return response.status


def open_live(member):
    """A page that stays open, and how it began."""
    connection = http.client.HTTPConnection(member.address, timeout=HTTP_SECONDS_MAX)

    def begin():
        connection.request("GET", "/live")
        response = connection.getresponse()
        response.read1(LIVE_BYTES)
        return response.status

    return connection, outcome_of(begin)


def outcome_of(asked):
    try:
        return asked()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__


def complaints(answers, role):
    """What an instance that always ran did not answer, and pages that were never seen."""
    # `/status` says 503 while the topics cannot be read.
    right = {(page, 200) for page in PAGES} | {("/status", 503)}
    of_role = {(page, outcome): n for (r, page, outcome), n in answers.items() if r == role}
    wrong = [
        f"{page}: {n} x {out}" for (page, out), n in of_role.items() if (page, out) not in right
    ]
    unseen = [f"{page}: never seen" for page in PAGES if not of_role.get((page, 200))]
    return wrong + unseen
