"""The recipes of docs/consumers, taken from the pages themselves and run as they stand there.

Only addresses, the prefix and the names of groups are replaced, each of which a page has to have. So a
page cannot show code that does not work, and nothing is tested that a page does not show.
"""

import re
import sys
import threading

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


def complete_lines_in_order(text):
    return [line for line in text[: text.rfind("\n") + 1].splitlines() if "\t" in line]


def recipes_part(world, checks):
    checks(
        "the recipe for Python, installed and run as its page says, prints every event",
        python,
        world,
    )
    checks("the recipe for Go, built from its page, prints every event", go, world)
    checks("the recipe for Kafka Streams, run from its page, prints who has access", streams, world)
