"""The needs of every reader: the services, the topics and the truth about them."""

import json

import builds
import scenario
import services as real
from processes import HERE, ROOT, run
from scenario import RECORDS

# Twice what the slowest reader took on two cores that ten other programs used.
READ_SECONDS_MAX = 240
# For readers that do not decode Avro.
OUTPUTS = "[outputs.ecs]\n[outputs.ocsf]\n"


class World:
    def __init__(self, services, work):
        self.services = services
        self.work = work
        self.scimtail = scenario.Scimtail(services, work, scenario.ACCOUNTS, OUTPUTS)
        self.topics = [self.scimtail.topic(name) for name in RECORDS]
        self.truth = None
        self.reference = None

    def play(self):
        # An earlier program had the same schemas, and is gone. Apicurio gives the ids of contents, which stay; readers
        # that take these for its global ids, which went with the subjects, fail.
        decoys = {
            f"{self.scimtail.prefix}-{file.stem}": file.read_text()
            for file in (ROOT / "schemas").glob("*.avsc")
        }
        for subject, schema in decoys.items():
            real.register(self.services.registry, subject, schema)
        self.truth = scenario.play(self.scimtail, self.abort)
        for subject in decoys:
            real.unregister(self.services.registry, subject)
        self.reference = self.read_in_python()

    def python(self, script, *arguments):
        return [
            builds.python() / "bin/python",
            HERE / "python" / script,
            "--bootstrap",
            self.services.bootstrap,
            *arguments,
        ]

    def abort(self):
        run("abort", self.python("abort.py", *self.topics), self.work, READ_SECONDS_MAX)

    def read_in_python(self, *options):
        reader = self.python(
            "read.py", "--registry", self.services.registry, *options, *self.topics
        )
        return lines(run("read", reader, self.work, READ_SECONDS_MAX))

    def name(self, record):
        return record["topic"].removeprefix(self.scimtail.prefix + ".")


def lines(text):
    return [json.loads(line) for line in text.splitlines()]
