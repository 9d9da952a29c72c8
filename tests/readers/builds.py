"""Downloads and builds for the readers, each once, until its sources change."""

import sys
import threading

from processes import CACHE, HERE, ROOT, Failed, built_once, require, run

BUILD_SECONDS_MAX = 900
JAVA_HINT = (
    "Kafka, the registry and the Java readers need a JDK 17 or newer and Maven: "
    "apt-get install openjdk-17-jdk-headless maven"
)
GO_HINT = (
    "The Go reader needs Go 1.24 or newer: https://go.dev/dl, or the system's if it is new enough"
)
VENV_HINT = "The Python readers need venv: apt-get install python3-venv"


def require_all():
    """Refuse to begin if something is missing; nothing is skipped."""
    require("java", JAVA_HINT, at_least=(17,))
    require("javac", JAVA_HINT, at_least=(17,))
    require("mvn", JAVA_HINT)
    require("go", GO_HINT, at_least=(1, 24))


def services():
    """Kafka in kafka/, the registry in apicurio/."""
    return maven("services", ROOT / "tests/services", "services.dir")


def python():
    return environment("python", requirements="requirements.txt")


def clickhouse():
    """ClickHouse as a library of Python, in chdb."""
    return environment("clickhouse", "--no-deps")


def tenzir():
    return environment("tenzir", "--no-deps")


def environment(name, *options, requirements=None):
    """Python with the packages of a file of requirements."""
    requirements = HERE / (requirements or f"requirements-{name}.txt")

    def build(directory):
        venv = [sys.executable, "-m", "venv", directory]
        try:
            run(f"venv-{name}", venv, CACHE, BUILD_SECONDS_MAX)
        except Failed as error:
            raise Failed(f"{error}\n  {VENV_HINT}") from None
        install = [
            directory / "bin/python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *options,
        ]
        run(f"pip-{name}", [*install, "--requirement", requirements], CACHE, BUILD_SECONDS_MAX)

    return built_once(name, [requirements], build)


def java():
    """The class path of Kafka Connect and Kafka Streams in lib/."""
    return maven("java", HERE / "java", "readers.dir")


def replay_java():
    return maven("replay-java", ROOT / "examples/replay/java", "output.dir")


def flink():
    """The class path of Flink SQL in lib/."""
    return maven("flink", HERE / "flink", "flink.dir")


# Maven's own folder of jars is not made for two that fill it at once.
ONE_MAVEN = threading.Lock()


def maven(name, project, output):
    sources = [
        project / "pom.xml",
        *(path for path in (project / "src").rglob("*") if path.is_file()),
    ]

    def build(directory):
        command = [
            "mvn",
            "-q",
            "-B",
            "-f",
            project / "pom.xml",
            "package",
            f"-D{output}={directory}",
        ]
        with ONE_MAVEN:
            run("mvn", command, directory, BUILD_SECONDS_MAX)

    return built_once(name, sources, build)


def go():
    sources = [HERE / "go" / name for name in ["go.mod", "go.sum", "main.go"]]

    def build(directory):
        run(
            "go",
            ["go", "build", "-C", HERE / "go", "-buildvcs=false", "-o", directory / "read", "."],
            directory,
            BUILD_SECONDS_MAX,
        )

    return built_once("go", sources, build)


MAVEN = [services, java, replay_java, flink]
