"""The faults of directories, one after the other, while the rounds go on."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from happenings import Deck
from vendors import STRUCK_MAX

# From one fault to the next.
PACE_SECONDS = 2.0
# How long a vendor is away, and how long it takes no token, at most.
AWAY_SECONDS_MAX = 5.0
# Between the two halves of a change of a token.
HALVES_SECONDS_MAX = 1.0
FAULTS = (*STRUCK_MAX, "connection refused", "token refused", "token changed")


@dataclass
class Later:
    """What ends a fault of an account or a vendor, and when."""

    at: float
    subject: object
    end: Callable


class Weather:
    def __init__(self, vendors, rng):
        self.vendors, self.rng = vendors, rng
        self.deck = Deck(FAULTS, rng)
        self.accounts = [account for vendor in vendors for account in vendor.accounts.values()]
        self.lock = threading.Lock()
        self.fair = True
        self.later = []
        # By fault, how often it was made.
        self.made = Counter()
        self.next_at = 0.0

    def worsen(self):
        self.fair = False

    def clear(self):
        """No fault any more, and none begins."""
        with self.lock:
            self.fair = True
            for later in self.later:
                later.end()
            self.later.clear()
            for account in self.accounts:
                account.heal()

    def tick(self):
        with self.lock:
            now = time.monotonic()
            for later in [later for later in self.later if later.at <= now]:
                self.later.remove(later)
                later.end()
            if not self.fair and now >= self.next_at:
                self.next_at = now + PACE_SECONDS
                self.make(self.deck.draw(), now)

    def make(self, fault, now):
        self.made[fault] += 1
        # What has a fault that ends later gets no other such fault before.
        busy = [later.subject for later in self.later]
        account = self.rng.choice([a for a in self.accounts if a not in busy])
        if fault in STRUCK_MAX:
            account.strike(fault, self.rng.randint(1, STRUCK_MAX[fault]))
        elif fault == "connection refused":
            vendor = self.rng.choice([v for v in self.vendors if v not in busy])
            vendor.close()
            self.end_later(now, AWAY_SECONDS_MAX, vendor, vendor.open)
        elif fault == "token refused":
            account.refuse_tokens()
            put_right = lambda: account.change_token(file_first=True)()
            self.end_later(now, AWAY_SECONDS_MAX, account, put_right)
        else:
            other_half = account.change_token(self.rng.random() < 0.5)
            self.end_later(now, HALVES_SECONDS_MAX, account, other_half)

    def end_later(self, now, seconds_max, subject, end):
        self.later.append(Later(now + self.rng.random() * seconds_max, subject, end))
