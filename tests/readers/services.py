"""Apache Kafka and Apicurio Registry, from the jars that tests/services/pom.xml pins."""

import json
import os
import urllib.request
from dataclasses import dataclass

import builds
from processes import Failed, Process, free_port, run

READY_SECONDS_MAX = 60
HTTP_SECONDS_MAX = 5
CCOMPAT = "/apis/ccompat/v7"


@dataclass
class Services:
    bootstrap: str
    # The Confluent-compatible API, and Apicurio's own.
    registry: str
    apicurio: str
    processes: list

    def stop(self):
        for process in self.processes:
            process.kill()


def java(directory, heap_mib):
    # They live for a minute: half the start-up time without the optimising compiler.
    return [
        "java", f"-Xmx{heap_mib}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
        f"-Djava.io.tmpdir={directory}",
    ]  # fmt: skip


def start(directory):
    """Start both, or use those that the environment names."""
    services = Services(
        os.environ.get("KAFKA_BOOTSTRAP"), os.environ.get("SCHEMA_REGISTRY_URL"), None, []
    )
    try:
        registry = None if services.registry else start_registry(services, directory)
        if not services.bootstrap:
            start_broker(services, directory)
        if registry:
            registry.wait_until(lambda: answers(f"{services.registry}/subjects"), READY_SECONDS_MAX)
    except BaseException:
        services.stop()
        raise
    services.registry = services.registry.rstrip("/")
    if CCOMPAT not in services.registry:
        services.stop()
        raise Failed(
            f"SCHEMA_REGISTRY_URL has to end with {CCOMPAT}: the Java readers use Apicurio's converter"
        )
    services.apicurio = services.registry.replace(CCOMPAT, "/apis/registry/v2")
    return services


def register(registry, subject, schema):
    body = json.dumps({"schema": schema}).encode()
    request = urllib.request.Request(f"{registry}/subjects/{subject}/versions", body)
    request.add_header("Content-Type", "application/vnd.schemaregistry.v1+json")
    http().open(request, timeout=HTTP_SECONDS_MAX).close()


def unregister(registry, subject):
    request = urllib.request.Request(f"{registry}/subjects/{subject}", method="DELETE")
    http().open(request, timeout=HTTP_SECONDS_MAX).close()


def http():
    # A service on loopback: no proxy of the environment applies.
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def start_broker(services, directory):
    directory = directory / "kafka"
    directory.mkdir()
    port, controller_port = free_port(), free_port()
    properties = directory / "server.properties"
    properties.write_text(
        f"""
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={directory / "data"}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.num.partitions=2
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""
    )
    command = [*java(directory, 768), "-cp", builds.services() / "kafka/*"]
    storage = [
        "kafka.tools.StorageTool",
        "format",
        "--standalone",
        "--cluster-id",
        "c2NpbXRhaWwtdGVzdHMtMQ",
    ]
    run("format", [*command, *storage, "--config", properties], directory, READY_SECONDS_MAX)
    kafka = Process("kafka", [*command, "kafka.Kafka", properties], directory)
    services.processes.append(kafka)
    services.bootstrap = f"127.0.0.1:{port}"
    # Its port accepts connections before the broker may lead partitions; this line comes after both.
    kafka.wait_until(lambda: "Kafka Server started" in kafka.log.read_text(), READY_SECONDS_MAX)


def start_registry(services, directory):
    directory = directory / "apicurio"
    directory.mkdir()
    port = free_port()
    runner = next((builds.services() / "apicurio").glob("*-runner.jar"))
    options = ["-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}"]
    registry = Process("apicurio", [*java(directory, 256), *options, "-jar", runner], directory)
    services.processes.append(registry)
    services.registry = f"http://127.0.0.1:{port}{CCOMPAT}"
    return registry


def answers(url):
    try:
        with http().open(url, timeout=HTTP_SECONDS_MAX) as response:
            return response.status == 200
    except OSError:
        return False
