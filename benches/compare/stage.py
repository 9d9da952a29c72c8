"""What all parts use: real Kafka and registry, the programs, and where figures go."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka.admin import AdminClient
from processes import ROOT, Failed

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
BUILD_SECONDS_MAX = 1_800
DELETE_SECONDS_MAX = 30
BEGAN = time.monotonic()


@dataclass
class Stage:
    bootstrap: str
    registry: str
    work: Path
    tools: Path
    # Name → path, in the order in which they take turns.
    binaries: dict
    rounds: int
    quick: bool
    results: object
    # Parsed schemas by their id in the registry.
    schemas: dict = field(default_factory=dict)
    # The consumer of `topics`.
    reader: object = None


def say(text):
    print(f"{time.monotonic() - BEGAN:7.1f} s  {text}", file=sys.stderr, flush=True)


def build(*command):
    """Fail points are in builds for tests only. OpenSSL is built from source, as for a release."""
    command = [*command, "--target-dir", TARGET]
    variables = {name: value for name, value in os.environ.items() if name != "OPENSSL_NO_VENDOR"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=variables, stdout=sys.stderr.fileno(), timeout=BUILD_SECONDS_MAX
        )
    except FileNotFoundError:
        raise Failed("cargo is missing; → install Rust, https://rustup.rs") from None
    if done.returncode != 0:
        raise Failed(f"{Path(command[0]).name} ended with {done.returncode}; → see its messages above")


def tools():
    """The folder of the load server and the limits."""
    say("building the load server and the limits")
    manifest = HERE / "tools/Cargo.toml"
    build("cargo", "build", "--locked", "--release", "--manifest-path", manifest)
    return TARGET / "release"


def binaries(given, work):
    """Copies of the programs to measure, which no build replaces while they run. `given`: each
    NAME=PATH or PATH."""
    if not given:
        say("building scimtail as a release is built")
        build(ROOT / "deploy/release/compile")
        given = [f"scimtail={TARGET / 'dist/scimtail'}"]
    named = {}
    for text in given:
        name, _, path = text.rpartition("=")
        name, path = name or "scimtail", Path(path).absolute()
        if name in named:
            raise Failed(f"--scimtail: two programs are named {name}; → --scimtail NAME=PATH")
        if not path.is_file():
            raise Failed(f"--scimtail: {path} is missing; → cargo build --release --locked")
        named[name] = work / f"binary-{name}"
        shutil.copy2(path, named[name])
    return named


def admin(stage):
    # The end of such a client is no error.
    return AdminClient({"bootstrap.servers": stage.bootstrap, "log_level": 3})


def drop(stage, *prefixes):
    """Deletes the topics of prefixes that are done with: their files are gigabytes."""
    client = admin(stage)
    there = client.list_topics(timeout=DELETE_SECONDS_MAX).topics
    gone = [topic for topic in there if topic.partition(".")[0] in prefixes]
    if gone:
        for deleted in client.delete_topics(gone, operation_timeout=DELETE_SECONDS_MAX).values():
            deleted.result()
