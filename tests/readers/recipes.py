"""The recipes of docs/consumers, taken from the pages themselves and run as they stand there.

Only addresses, the prefix and the names of groups are replaced, each of which a page has to have. So a
page cannot show code that does not work, and nothing is tested that a page does not show.
"""

import json
import re
import sys
import threading
import tomllib
from collections import Counter

import builds
import services as real
from compare import folded, group_key, user_key
from processes import CACHE, HERE, ROOT, Failed, Process, built_once, run
from world import READ_SECONDS_MAX

PAGES = ROOT / "docs/consumers"


def block(page, language, begins):
    """The block of code of a page whose first line is `begins`."""
    text = (PAGES / page).read_text()
    found = [
        one for one in re.findall(rf"```{language}\n(.*?)```", text, re.S) if one.startswith(begins)
    ]
    if len(found) != 1:
        raise Failed(
            f"docs/consumers/{page} has {len(found)} blocks of {language} that begin with {begins!r}"
        )
    return found[0]


def adapted(code, replacements):
    for shown, used in replacements.items():
        if shown not in code:
            raise Failed(f"the recipe does not have {shown!r}, which has to be replaced here")
        code = code.replace(shown, used)
    return code


def places(world, name, registry, url):
    """What a recipe names, and what it is here. Each recipe is a group of its own."""
    prefix = world.scimtail.prefix
    return {
        "localhost:9092": world.services.bootstrap,
        "scim.": f"{prefix}.",
        "access-review": f"{prefix}-{name}",
        registry: url,
    }


def follow(name, command, directory, expected, read):
    """Run a recipe, which does not end by itself, until `read(output)` is what is expected."""
    process = Process(name, command, directory)
    try:
        process.wait_until(lambda: read(process.out.read_text()) == expected, READ_SECONDS_MAX)
    except Failed as error:
        got = read(process.out.read_text())
        raise Failed(
            f"{error}\n  {len(got)} of {len(expected)} results, e.g. {list(got)[-3:]}"
        ) from None
    finally:
        process.stop()


def events(world):
    """What the recipes print of each event, in any order of accounts."""
    topic = world.scimtail.topic("events")
    values = [record["value"] for record in world.reference if record["topic"] == topic]
    return sorted(
        f"{event['account']} {event['sequence']} {event['event_type']} {event['principal_id']}"
        for event in values
    )


def complete_lines(text):
    return sorted(text[: text.rfind("\n") + 1].splitlines())


def environment():
    """Python with what the page says to install."""
    install = block("clients.md", "sh", "pip install")
    requirements = CACHE / "recipe-python.txt"
    # Two threads may come here at once, and neither reads half of it.
    written = CACHE / f"recipe-python-{threading.get_ident()}.txt"
    written.write_text("\n".join(re.findall(r"'([^']+)'", install)) + "\n")
    written.replace(requirements)

    def build(into):
        run("venv", [sys.executable, "-m", "venv", into], CACHE, builds.BUILD_SECONDS_MAX)
        # The line of the page, with the pip of a new environment.
        command = install.strip().replace(
            "pip install", f"{into}/bin/python -m pip install --quiet"
        )
        run("pip", ["sh", "-c", command], CACHE, builds.BUILD_SECONDS_MAX)

    return built_once("recipe-python", [requirements], build)


def python(world):
    directory = world.work / "recipe-python"
    directory.mkdir()
    program = directory / "events.py"
    code = block("clients.md", "python", "# events.py")
    program.write_text(
        adapted(code, places(world, "python", "http://localhost:8081", world.services.registry))
    )
    command = [environment() / "bin/python", program]
    follow("events", command, directory, events(world), complete_lines)


def go(world):
    directory = world.work / "recipe-go"
    directory.mkdir()
    module = (HERE / "go/go.mod").read_text()
    for wanted in re.findall(r"(\S+)@(v\S+)", block("clients.md", "sh", "go mod init")):
        # The versions of the page are those of the module, whose checksums are kept.
        if " ".join(wanted) not in module:
            raise Failed(
                f"docs/consumers/clients.md names {'@'.join(wanted)}, tests/readers/go/go.mod does not"
            )
    (directory / "go.mod").write_text(module)
    (directory / "go.sum").write_text((HERE / "go/go.sum").read_text())
    code = block("clients.md", "go", "// main.go")
    (directory / "main.go").write_text(
        adapted(code, places(world, "go", "http://localhost:8081", world.services.registry))
    )
    run(
        "go",
        ["go", "build", "-buildvcs=false", "-o", "events", "."],
        directory,
        builds.BUILD_SECONDS_MAX,
    )
    follow("events", [directory / "events"], directory, events(world), complete_lines)


def streams(world):
    directory = world.work / "recipe-streams"
    directory.mkdir()
    code = block("kafka-streams.md", "java", "// Access.java")
    replaced = places(
        world, "streams", "http://localhost:8080/apis/registry/v2", world.services.apicurio
    )
    (directory / "Access.java").write_text(adapted(code, replaced))
    state = folded(world, world.reference)
    expected = {
        key: f"{state['users'][user_key(key)]['user_name']} in {state['groups'][group_key(key)]['display_name']}"
        for key, membership in state["memberships"].items()
        if membership["principal_type"] == "user"
    }

    def access(text):
        newest = dict(line.split("\t", 1) for line in complete_lines_in_order(text))
        return {key: value for key, value in newest.items() if value != "null"}

    command = [
        *real.java(directory, 384),
        "-cp",
        builds.java() / "lib/*",
        directory / "Access.java",
    ]
    follow("access", command, directory, expected, access)


def clickhouse(world):
    """The statements of the page, in a ClickHouse of its own. The rows have every column of the page."""
    directory = world.work / "recipe-clickhouse"
    directory.mkdir()
    statements = block("databases.md", "sql", "CREATE TABLE events_queue (")
    columns = re.findall(r"(\w+) [A-Z][\w()]*[,\n]", statements.partition(") ENGINE")[0])
    replaced = places(world, "clickhouse", "http://localhost:8081", world.services.registry)
    replaced["'clickhouse'"] = f"'{replaced.pop('access-review')}'"
    (directory / "events.sql").write_text(adapted(statements, replaced))
    topic = world.scimtail.topic("events")
    expected = sorted(
        canonical({name: record["value"][name] for name in columns})
        for record in world.reference
        if record["topic"] == topic
    )
    command = [
        builds.clickhouse() / "bin/python",
        HERE / "python/clickhouse.py",
        "events.sql",
        "SELECT * FROM events FINAL SETTINGS date_time_output_format = 'iso'",
        directory / "tables",
    ]
    read = lambda text: sorted(canonical(json.loads(line)) for line in complete_lines(text))
    follow("clickhouse", command, directory, expected, read)


def tenzir(world):
    """The pipeline of the page, with its rows as JSON: each is what scimtail prints of the event."""
    directory = world.work / "recipe-tenzir"
    directory.mkdir()
    pipeline = block("pipelines.md", "tql", "from_kafka")
    replaced = places(world, "tenzir", "http://localhost:8081", world.services.registry)
    replaced = {
        shown: used for shown, used in replaced.items() if shown in ["localhost:9092", "scim."]
    }
    replaced['"tenzir"'] = f'"{world.scimtail.prefix}-tenzir"'
    (directory / "events.tql").write_text(
        adapted(pipeline, replaced) + "write_ndjson\nsave_stdout\n"
    )
    expected = sorted(canonical(event) for event in printed(world, "ocsf"))
    # The program of the wheel names the folder in which it was installed, and that was renamed.
    begin = "from tenzir._bin.tenzir import main; main()"
    command = [builds.tenzir() / "bin/python", "-c", begin, "-f", "events.tql"]
    read = lambda text: sorted(canonical(json.loads(line)) for line in complete_lines(text))
    follow("tenzir", command, directory, expected, read)


def printed(world, name):
    """The events in a format of others, as scimtail prints them."""
    text = world.scimtail.run("tail", "--from", "beginning", "--exit", "--format", name)
    return [json.loads(line) for line in text.splitlines()]


# The classes of the JDK that Flink's serialisers open.
OPEN = [
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in ["java.lang", "java.util", "java.time"]
]


def flink(world):
    """The tables of the page, with the query of the page and one that shows a whole table."""
    directory = world.work / "recipe-flink"
    directory.mkdir()
    created = block("databases.md", "sql", "-- What the tables have in common.\nCREATE TABLE scim")
    replaced = places(world, "flink", "http://localhost:8081", world.services.registry)
    # Flink has no group here.
    del replaced["access-review"]
    joined = block("databases.md", "sql", "SELECT m.account, u.user_name")
    users = "SELECT * FROM users"
    state = folded(world, world.reference)
    columns = re.findall(
        r"^ {4}(\w+) [A-Z]", created.partition("CREATE TABLE users")[2].partition(")")[0], re.M
    )
    expected = Counter()
    for key, user in state["users"].items():
        row = {name: user[name] for name in ["account", *columns]}
        expected[canonical({"query": users, "key": key} | row)] += 1
    for key, membership in state["memberships"].items():
        if membership["principal_type"] == "user":
            user, group = state["users"][user_key(key)], state["groups"][group_key(key)]
            row = {name: user[name] for name in ["account", "user_name", "active"]}
            expected[
                canonical({"query": joined.strip("\n;"), "group_name": group["display_name"]} | row)
            ] += 1
    tables = adapted(created, replaced)
    statements = [*tables.strip("\n;").split(";\n\n"), users, joined.strip("\n;")]
    files = [directory / f"{number}.sql" for number in range(len(statements))]
    for file, statement in zip(files, statements):
        file.write_text(statement)
    command = [
        *real.java(directory, 512),
        *OPEN,
        "-cp",
        builds.flink() / "lib/*",
        "readers.Flink",
        *files,
    ]
    follow("flink", command, directory, expected, rows_of_changes)


def rows_of_changes(text):
    """The rows that a stream of changes leaves, each with how often it is there."""
    rows = Counter()
    for line in text[: text.rfind("\n") + 1].splitlines():
        row = json.loads(line)
        times = 1 if row.pop("kind") in ["+I", "+U"] else -1
        rows[canonical(row)] += times
    return Counter({row: times for row, times in rows.items() if times})


def canonical(row):
    return json.dumps(row, sort_keys=True)


def complete_lines_in_order(text):
    return [line for line in text[: text.rfind("\n") + 1].splitlines() if "\t" in line]


def readable(world):
    """Each block of TOML and of YAML, also of what is not run."""
    read = {"toml": 0, "yaml": 0}
    for page in sorted(PAGES.glob("*.md")):
        for language, text in re.findall(r"```(toml|yaml)\n(.*?)```", page.read_text(), re.S):
            read[language] += 1
            if language == "toml":
                try:
                    tomllib.loads(text)
                except tomllib.TOMLDecodeError as error:
                    raise Failed(f"{page.name}: {error}\n{text}") from None
            else:
                file = world.work / f"recipe-{page.stem}-{read[language]}.yaml"
                file.write_text(text)
                program = "import sys, yaml; yaml.safe_load(open(sys.argv[1]))"
                run("yaml", [builds.python() / "bin/python", "-c", program, file], world.work, 60)
    if 0 in read.values():
        raise Failed(f"the pages have blocks of {read}")


def recipes_part(world, checks):
    checks("the TOML and YAML of all recipes can be read", readable, world)
    checks(
        "the recipe for Python, installed and run as its page says, prints every event",
        python,
        world,
    )
    checks("the recipe for Go, built from its page, prints every event", go, world)
    checks("the recipe for Kafka Streams, run from its page, prints who has access", streams, world)


def flink_part(world, checks):
    checks(
        "the recipe for Flink SQL, run from its page, has the users and prints who has access",
        flink,
        world,
    )


def clickhouse_part(world, checks):
    checks("the recipe for ClickHouse, run from its page, has every event", clickhouse, world)


def tenzir_part(world, checks):
    checks("the recipe for Tenzir, run from its page, has every event in OCSF", tenzir, world)
