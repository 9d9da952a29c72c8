"""Three real Kafka brokers in one cluster: each is a broker and a controller (KRaft, combined mode)."""

import json
import random
import re
import socket
import time

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

import services as real
from processes import ROOT, Failed, Process, built_once, run

HERE = ROOT / "tests/cluster"
NODES = (1, 2, 3)
HEAP_MIB = 256
FETCH_SECONDS_MAX = 900
FORMAT_SECONDS_MAX = 90
# After SIGKILL a restart waits until the session of the killed process has ended, 9 s by default. Without a quorum
# of controllers it waits until that is back.
READY_SECONDS_MAX = 120
# A controlled shutdown moves all leaders first.
STOP_SECONDS_MAX = 60
IN_SYNC_SECONDS_MAX = 120
TOOL_SECONDS_MAX = 60
ADMIN_SECONDS_MAX = 15
# Until every broker knows a new topic.
KNOWN_SECONDS_MAX = 15
LOOK_SECONDS = 0.3
UNKNOWN_TOPIC = KafkaError.UNKNOWN_TOPIC_OR_PART
# Ports of brokers are below the range from which Linux takes the ports of outgoing connections: the port of a
# killed broker stays free for its restart.
PORTS = range(20_000, 32_000)
# As many as a broker needs to lead some and to follow some. By default 50, which only makes a start slower.
INTERNAL_PARTITIONS = 6
CLUSTER_ID = "c2NpbXRhaWwtY2x1c3Rlcg"
# How users prove themselves at the listener that asks for it.
MECHANISM = "SCRAM-SHA-512"
# Kafka's default.
SCRAM_ITERATIONS = 4096


def jars(version):
    """The folder with the jars of this version; fetched once."""

    def build(directory):
        pom = HERE / "pom.xml"
        fetch = ["mvn", "-q", "-B", "-f", pom, "package", f"-Dkafka.version={version}"]
        run("mvn", [*fetch, f"-Dcluster.dir={directory}"], directory, FETCH_SECONDS_MAX)

    return built_once(f"kafka-{version}", [HERE / "pom.xml"], build)


def free_port(taken):
    """A port without a listener that is not in `taken`, where it is added."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in taken:
            taken.add(port)
            return port
    raise Failed(f"all ports from {PORTS.start} to {PORTS.stop} are in use")


class Broker:
    def __init__(self, cluster, node, port, scram_port):
        self.cluster, self.node, self.port = cluster, node, port
        # Of the listener that takes users only; None without one.
        self.scram_port = scram_port
        self.directory = cluster.directory / f"broker-{node}"
        self.directory.mkdir()
        self.properties = self.directory / "server.properties"
        self.process = None
        self.log_before = 0

    def java(self, main, *arguments):
        date = "-Dorg.slf4j.simpleLogger.showDateTime=true"
        form = "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"
        classes = self.cluster.jars / "*"
        options = real.java(self.directory, HEAP_MIB)
        return [*options, date, form, "-cp", classes, main, *arguments]

    def configure(self, controllers):
        """`controllers`: the port of each node's controller."""
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in controllers.items())
        address, protocol, settings = "", "", ""
        if self.scram_port is not None:
            address = f",SCRAM://127.0.0.1:{self.scram_port}"
            protocol = ",SCRAM:SASL_PLAINTEXT"
            module = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            settings = f"""
sasl.enabled.mechanisms={MECHANISM}
listener.name.scram.{MECHANISM.lower()}.sasl.jaas.config={module}
"""
        # min.insync.replicas is left alone: 1 is Kafka's default, and scimtail has to set it for its topics.
        self.properties.write_text(
            f"""
process.roles=broker,controller
node.id={self.node}
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controllers[self.node]}{address}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}{address}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocol}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters={voters}
log.dirs={self.directory / "data"}
auto.create.topics.enable=false
default.replication.factor=3
offsets.topic.num.partitions={INTERNAL_PARTITIONS}
offsets.topic.replication.factor=3
transaction.state.log.num.partitions={INTERNAL_PARTITIONS}
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
group.initial.rebalance.delay.ms=0
# The default takes half of the heap.
log.cleaner.dedupe.buffer.size=8388608
{settings}"""
        )

    def format(self):
        """Begins to format the storage."""
        tool = ["format", "--cluster-id", CLUSTER_ID, "--config", self.properties]
        for user, password in self.cluster.users.items():
            tool += ["--add-scram", f"{MECHANISM}=[name={user},password={password}]"]
        command = self.java("kafka.tools.StorageTool", *tool)
        return Process("format", command, self.directory)

    def start(self):
        """Starts the process; it is not ready yet."""
        log = self.directory / "kafka.log"
        self.log_before = log.stat().st_size if log.exists() else 0
        command = self.java("kafka.Kafka", self.properties)
        self.process = Process("kafka", command, self.directory)

    def is_ready(self):
        # The port accepts connections before the broker may lead partitions; this line comes after both.
        with self.process.log.open("rb") as log:
            log.seek(self.log_before)
            return b"Kafka Server started" in log.read()

    def wait_until_ready(self):
        self.process.wait_until(self.is_ready, READY_SECONDS_MAX)

    def runs(self):
        return self.process is not None and self.process.supervisor.poll() is None

    def terminate(self):
        """SIGTERM: leaders move away before it ends."""
        self.process.supervisor.stdin.close()
        # JVMs end with 128 + 15 after a SIGTERM that they obeyed.
        self.process.finish(STOP_SECONDS_MAX, codes=(0, 143))
        self.process = None

    def kill(self):
        """SIGKILL."""
        self.process.kill()
        self.process = None


class Cluster:
    """The brokers of one version of Kafka. With `users`, by name their passwords, a further listener takes only these."""

    def __init__(self, version, work, users=None):
        self.version = version
        self.users = users or {}
        self.jars = jars(version)
        self.directory = work / f"kafka-{version}"
        self.directory.mkdir()
        taken = set()
        self.brokers = {
            node: Broker(self, node, free_port(taken), free_port(taken) if users else None)
            for node in NODES
        }
        controllers = {node: free_port(taken) for node in NODES}
        for broker in self.brokers.values():
            broker.configure(controllers)

    @property
    def bootstrap(self):
        return [f"127.0.0.1:{broker.port}" for broker in self.brokers.values()]

    @property
    def bootstrap_of_users(self):
        return [f"127.0.0.1:{broker.scram_port}" for broker in self.brokers.values()]

    def start(self):
        formats = [broker.format() for broker in self.brokers.values()]
        for process in formats:
            process.finish(FORMAT_SECONDS_MAX)
        self.restart(NODES)

    def restart(self, nodes):
        """Starts those that do not run, and waits until they are ready."""
        for node in nodes:
            if not self.brokers[node].runs():
                self.brokers[node].start()
        for node in nodes:
            self.brokers[node].wait_until_ready()

    def mend(self):
        """All brokers run and are in sync, whatever the part before left behind."""
        self.restart([node for node, broker in self.brokers.items() if not broker.runs()])
        self.wait_until_in_sync()

    def stop(self):
        for broker in self.brokers.values():
            if broker.process is not None:
                broker.kill()

    def admin(self):
        return AdminClient(
            {
                "bootstrap.servers": ",".join(self.bootstrap),
                # Brokers are killed on purpose: not a line for each attempt to connect.
                "log_level": 0,
                "error_cb": lambda _: None,
            }
        )

    def metadata(self):
        return self.admin().list_topics(timeout=ADMIN_SECONDS_MAX)

    def out_of_sync(self):
        """What is not as it should be: brokers that are not there, partitions without a leader or with too few
        replicas in sync."""
        try:
            metadata = self.metadata()
        except KafkaException as error:
            return [str(error.args[0])]
        wrong = [f"broker {node} is missing" for node in NODES if node not in metadata.brokers]
        for topic in metadata.topics.values():
            for number, partition in topic.partitions.items():
                if partition.leader < 0 or sorted(partition.isrs) != sorted(partition.replicas):
                    wrong.append(
                        f"{topic.topic}[{number}]: leader {partition.leader}, in sync {partition.isrs}"
                    )
        return wrong

    def wait_until_in_sync(self):
        """Returns the seconds that it took."""
        began = time.monotonic()
        clean = 0
        # Twice: a broker may answer with what was true a moment before.
        while clean < 2:
            wrong = self.out_of_sync()
            clean = 0 if wrong else clean + 1
            if wrong and time.monotonic() - began > IN_SYNC_SECONDS_MAX:
                shown = "; ".join(wrong[:5])
                raise Failed(f"the cluster is not in sync after {IN_SYNC_SECONDS_MAX} s: {shown}")
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - began

    def leader(self, topic, partition):
        return self.metadata().topics[topic].partitions[partition].leader

    def leaders(self):
        """Topic and partition to the leading node, of all topics."""
        return {
            (topic.topic, number): partition.leader
            for topic in self.metadata().topics.values()
            for number, partition in topic.partitions.items()
        }

    def coordinator(self, group):
        """The node that coordinates a consumer group."""
        # Named, because answers come only as long as the client is there.
        admin = self.admin()
        described = admin.describe_consumer_groups([group], request_timeout=ADMIN_SECONDS_MAX)
        return described[group].result(ADMIN_SECONDS_MAX).coordinator.id

    def transaction_coordinator(self, transactional_id):
        """The node that coordinates the transactions of a producer, by Kafka's rule for the partition."""
        code = 0
        # Java's hash of a text, and Kafka's absolute value of it.
        for character in transactional_id:
            code = (31 * code + ord(character)) & 0xFFFFFFFF
        return self.leader("__transaction_state", (code & 0x7FFFFFFF) % INTERNAL_PARTITIONS)

    def controller(self):
        """The node whose controller is active."""
        quorum = ["--bootstrap-server", ",".join(self.bootstrap), "describe", "--status"]
        status = self.tool("quorum", "org.apache.kafka.tools.MetadataQuorumCommand", *quorum)
        return int(re.search(r"LeaderId:\s*(\d+)", status)[1])

    def tool(self, name, main, *arguments):
        command = self.brokers[NODES[0]].java(main, *arguments)
        return run(name, command, self.directory, TOOL_SECONDS_MAX)

    def move_leaders(self):
        """Makes the next replica of each partition its leader. So the coordinators of groups and of transactions move
        too: they are the leaders of partitions of two internal topics. Returns how many leaders moved, of how many.
        """
        before = self.leaders()
        wanted = {}
        for topic in self.metadata().topics.values():
            for number, partition in topic.partitions.items():
                replicas = sorted(partition.replicas)
                at = replicas.index(partition.leader) + 1 if partition.leader in replicas else 0
                wanted[(topic.topic, number)] = replicas[at:] + replicas[:at]
        plan = self.directory / "reassignment.json"
        partitions = [
            {"topic": topic, "partition": number, "replicas": replicas}
            for (topic, number), replicas in wanted.items()
        ]
        plan.write_text(json.dumps({"version": 1, "partitions": partitions}))
        main = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
        where = ["--bootstrap-server", ",".join(self.bootstrap)]
        self.tool("reassign", main, *where, "--reassignment-json-file", plan, "--execute")
        # By Kafka's tool: the call of confluent-kafka 2.16 fails in its own code.
        main = "org.apache.kafka.tools.LeaderElectionCommand"
        self.tool("elect", main, *where, "--election-type", "preferred", "--all-topic-partitions")
        self.wait_until_in_sync()
        after = self.leaders()
        return sum(after.get(place) != leader for place, leader in before.items()), len(before)

    def described(self, topics):
        """Metadata of each topic, as soon as the broker that is asked knows them all."""
        deadline = time.monotonic() + KNOWN_SECONDS_MAX
        while missing := topics - (known := self.metadata().topics).keys():
            if time.monotonic() > deadline:
                raise Failed(f"not known after {KNOWN_SECONDS_MAX} s: {', '.join(sorted(missing))}")
            time.sleep(LOOK_SECONDS)
        return {topic: known[topic] for topic in topics}

    def settings(self, topics, name):
        """The value of a setting by topic."""
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
        deadline = time.monotonic() + KNOWN_SECONDS_MAX
        while True:
            admin = self.admin()
            described = admin.describe_configs(resources, request_timeout=ADMIN_SECONDS_MAX)
            try:
                return {
                    resource.name: future.result(ADMIN_SECONDS_MAX)[name].value
                    for resource, future in described.items()
                }
            except KafkaException as error:
                # The broker that was asked may not know the topic yet.
                if error.args[0].code() != UNKNOWN_TOPIC or time.monotonic() > deadline:
                    raise
                time.sleep(LOOK_SECONDS)

    def set(self, topics, settings):
        """Changes these settings of each topic."""
        entries = [
            ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET)
            for name, value in settings.items()
        ]
        resources = [
            ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
            for topic in topics
        ]
        admin = self.admin()
        changed = admin.incremental_alter_configs(resources, request_timeout=ADMIN_SECONDS_MAX)
        for future in changed.values():
            future.result(ADMIN_SECONDS_MAX)

    def replicas(self, topics):
        """How many replicas the partitions of each topic have."""
        return {
            name: min(len(partition.replicas) for partition in topic.partitions.values())
            for name, topic in self.described(set(topics)).items()
        }

    def open_transactions(self, topics):
        """The partitions in which a transaction is open: readers of committed records stop before it."""
        admin = self.admin()
        places = [
            TopicPartition(name, number)
            for name, topic in self.described(set(topics)).items()
            for number in topic.partitions
        ]
        ends = []
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED):
            latest = {place: OffsetSpec.latest() for place in places}
            found = admin.list_offsets(
                latest, isolation_level=level, request_timeout=ADMIN_SECONDS_MAX
            )
            ends.append(
                {
                    (place.topic, place.partition): future.result(ADMIN_SECONDS_MAX).offset
                    for place, future in found.items()
                }
            )
        committed, written = ends
        return sorted(f"{t}[{p}]" for (t, p), end in written.items() if committed[(t, p)] < end)

    def change_password(self, user, password):
        """From now on a new connection of this user needs the new password; those that there are stay."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, SCRAM_ITERATIONS)
        change = UserScramCredentialUpsertion(user, info, password.encode())
        admin = self.admin()
        changed = admin.alter_user_scram_credentials([change], request_timeout=ADMIN_SECONDS_MAX)
        changed[user].result(ADMIN_SECONDS_MAX)
        self.users[user] = password

    def create(self, topic):
        admin = self.admin()
        new = NewTopic(topic, num_partitions=1, replication_factor=len(NODES))
        created = admin.create_topics([new], request_timeout=ADMIN_SECONDS_MAX)
        created[topic].result(ADMIN_SECONDS_MAX)

    def delete(self, topics):
        """Deletes those of the topics that there are."""
        admin = self.admin()
        deleted = admin.delete_topics(topics, request_timeout=ADMIN_SECONDS_MAX)
        for future in deleted.values():
            try:
                future.result(ADMIN_SECONDS_MAX)
            except KafkaException as error:
                if error.args[0].code() != UNKNOWN_TOPIC:
                    raise
