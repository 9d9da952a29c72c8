"""The checker of the crash matrix (tests/it/crash_matrix/check_topics.py), as a process of its own."""

import json
import subprocess
import sys
from collections import Counter

from processes import ROOT, Failed

CHECKER = ROOT / "tests/it/crash_matrix/check_topics.py"


class Checker:
    def __init__(self, bootstrap, registry, log):
        # Its input ends when this process does, and then it ends too.
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, CHECKER, "--bootstrap", ",".join(bootstrap)]
                + ["--registry", registry],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.log = log
        self.counts = Counter()

    def order(self, name, content):
        try:
            self.process.stdin.write(json.dumps({name: content}) + "\n")
            self.process.stdin.flush()
            # It bounds its own waits for brokers and the registry.
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError) as error:
            end = self.log.read_text()[-2000:]
            raise Failed(f"the checker broke down at {name}: {error}\n{end}") from None

    def begin(self, prefix, partitions, accounts, refuses_proof=False):
        """`accounts`: their baselines. `refuses_proof`: GETs of single principals may fail too."""
        self.counts.clear()
        baselines = {
            name: {"baseline": baseline, "refuses_proof": refuses_proof}
            for name, baseline in accounts.items()
        }
        self.order("begin", {"prefix": prefix, "partitions": partitions, "accounts": baselines})

    def check(self, tenants):
        """Judges all records since the last check; the newest version has to be there."""
        for account, tenant in tenants.items():
            for version in tenant.take_versions():
                self.order("version", {"account": account, **version})
        denied = {account: tenant.take_denied() for account, tenant in tenants.items()}
        judgement = self.order("check", {"denied": denied, "converged": True})
        if judgement.get("complaints"):
            raise Failed("the checker complains:\n  " + "\n  ".join(judgement["complaints"]))
        self.counts.update({name: judgement[name] for name in judgement if name != "complaints"})

    def keep(self, file):
        """Writes the orders and the records to a file."""
        self.order("keep", {"file": str(file)})

    def forget(self, file):
        """Appends them to a file instead, and forgets them."""
        self.order("forget", {"file": str(file)})

    def stop(self):
        self.process.kill()
        self.process.wait()
