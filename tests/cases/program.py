"""Runs the program under test, and reads what it prints."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field

# The exit code of a configuration that the program refuses.
CONFIGURATION = 78
# A round of all cases in one `run --once`; servers that break off are tried again for some seconds.
RUN_SECONDS_MAX = 280
# `check` and `plan` of one account: `check` itself gives up after 30 s, `plan` after all tries.
LOOK_SECONDS_MAX = 120
# Two partitions: accounts share them, and a broker that outlives the run keeps few files.
PARTITIONS = 2


@dataclass
class Ended:
    """A command that has ended; `code` is None if it was stopped because it took too long."""

    code: int | None
    out: str
    errors: str

    @property
    def text(self):
        return self.out + self.errors


class Program:
    """The binary, and the services that it works with."""

    def __init__(self, binary, brokers, registry, prefix, environment):
        self.binary, self.brokers, self.registry = binary, brokers, registry
        self.prefix, self.environment = prefix, environment

    def __call__(self, config, *arguments, seconds_max=RUN_SECONDS_MAX):
        command = [self.binary, "--config", str(config), *arguments]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                timeout=seconds_max,
            )
        except OSError as error:
            sys.exit(f"{self.binary}: {error.strerror}; SCIMTAIL names the binary")
        except subprocess.TimeoutExpired as ended:
            out, errors = ended.stdout or b"", ended.stderr or b""
            return Ended(None, out.decode(), f"{errors.decode()}stopped after {seconds_max} s")
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    def configuration(self, accounts):
        """The text of a configuration file with these `[[account]]` texts."""
        head = [
            "[kafka]",
            f"brokers = {json.dumps(self.brokers.split(','))}",
            f'topic_prefix = "{self.prefix}"',
            f"partitions = {PARTITIONS}",
            "[registry]",
            f'url = "{self.registry}"',
        ]
        return "\n".join(head) + "\n" + "".join(accounts)

    def records(self, config, *arguments):
        """The objects that a command with `--format json` prints, one a line."""
        printed = self(config, *arguments, "--format", "json").out
        return [json.loads(line) for line in printed.splitlines()]


def refused(errors, config_text, names):
    """Those of `names` that a refusal of the configuration is about: by name, else by the line that it names."""
    named = [name for name in names if re.search(rf"\b{re.escape(name)}\b(?!-)", errors)]
    line = re.search(r"\.toml:(\d+)", errors)
    if named or not line:
        return named
    head = config_text.splitlines()[: int(line[1])]
    return re.findall(r'^name = "(.*)"$', "\n".join(head), re.M)[-1:]


def lines_by_account(output, names):
    """The lines of each account in the output of `run` and `check`: its own and the indented ones below it."""
    lines, current = {}, None
    for line in output.splitlines():
        if line[:1].strip():
            word = line.removeprefix("error: ").split()[0].rstrip(":")
            current = word if word in names else None
        if current:
            lines.setdefault(current, []).append(line)
    return lines


@dataclass
class Outcome:
    """The lines of `run --once` about one account."""

    lines: list = field(default_factory=list)
    # `completed`, `failed`, `held`, or another word; None if the account is not mentioned.
    status: str | None = None
    sync: int | None = None
    # Why it failed or is held, in the program's words.
    reason: str = ""
    # What it found and says below a sync that completed.
    notes: list = field(default_factory=list)

    @property
    def text(self):
        return "\n".join(self.lines)


def outcome(lines):
    """Reads `NAME  STATUS  TEXT` and the labelled lines below."""
    if not lines or lines[0].startswith("error: "):
        return Outcome(lines)
    _, status, text = (lines[0].split(None, 2) + ["", ""])[:3]
    # The first sync of an account that completes.
    status = "completed" if status == "baseline" else status
    number = re.match(r"sync (\d+):? *", text)
    reason = text[number.end() :] if number else text.removesuffix("Nothing was published.")
    notes = []
    for line in lines[1:]:
        label, _, text = line.strip().partition(" ")
        if label.rstrip(":") == "note":
            notes.append(text.strip())
        elif label == "→":
            reason += f" {line.strip()}"
    return Outcome(lines, status, int(number[1]) if number else None, reason.strip(), notes)
