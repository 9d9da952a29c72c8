"""Starts scimtail with 30 accounts of all kinds, and lets look.mjs look at its status page.

    tests/page/run                     all checks; takes a minute
    tests/page/run --pictures FOLDER   keeps pictures of the page
    tests/page/run --stay              keeps the service running until Enter, to look by hand
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import services as real
from directory import Server
from processes import CACHE, ROOT, Failed, Process, free_port, run

HERE = Path(__file__).resolve().parent
READY_SECONDS_MAX = 120
COMMAND_SECONDS_MAX = 60
LOOK_SECONDS_MAX = 240
NPM_SECONDS_MAX = 300
POLL_SECONDS = 0.3
TOKEN = "page-token"
# Text that does harm where it is not escaped: markup, a script, an entity, a change of direction, an invisible
# character, a terminal sequence, a very long word.
NAMES = (
    '<script>document.title="owned"</script>',
    '"><img src=x onerror="document.title=\'owned\'">',
    "</td></table><h1>owned</h1>",
    "&lt;b&gt;&amp;",
    "abc\u202egpj.exe",
    "a\u2066b\u2069c\u200bd\ufeffe",
    "\u001b[31mred",
    "x" * 300,
    "田中さくら 👩‍👩‍👧‍👦 العربية",
)
CALM = tuple(f"calm-{number:02}" for number in range(1, 27))
ACCOUNTS = (*CALM, "held", "paused", "failing", "a-name-that-is-as-long-as-the-names-of-accounts-may-be-at-most")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pictures", type=Path, help="a folder for pictures of the page")
    arguments.add_argument("--stay", action="store_true", help="keep the service running until Enter")
    arguments = arguments.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise Failed("Chromium is missing; → apt-get install chromium")
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise Failed(f"{tool} is missing; → apt-get install nodejs npm")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        services = real.start(folder)
        try:
            look(folder, services, chromium, arguments)
        finally:
            services.stop()


def look(folder, services, chromium, arguments):
    server = Server(TOKEN)
    for account in ACCOUNTS:
        populate(server.add(account))
    port = free_port()
    configure(folder, services, server, port)
    scimtail(folder, "run", "--once", codes=(0, 75))
    program = binary()
    # Losses of all accounts; the guard of one holds any.
    for account in ACCOUNTS:
        server.directories[account].remove_user("user-1")
    # Its directory has gone.
    del server.directories["failing"]
    service = Process("service", [program, "run"], folder, PAGE_TOKEN=TOKEN)
    try:
        service.wait_until(lambda: reached(port), READY_SECONDS_MAX)
        scimtail(folder, "pause", "paused", "--reason", NAMES[0])
        service.wait_until(lambda: labels(port) == expected(), READY_SECONDS_MAX)
        if arguments.stay:
            print(f"http://127.0.0.1:{port}", flush=True)
            sys.stdin.readline()
            return
        settings = {
            "chromium": chromium,
            "url": f"http://127.0.0.1:{port}/",
            "accounts": len(ACCOUNTS),
            "pictures": str(arguments.pictures.absolute()) if arguments.pictures else None,
        }
        command = ["node", str(modules() / "look.mjs"), json.dumps(settings)]
        looking = Process("look", command, folder)
        # While the page is open: what changes has to show by itself.
        changed = folder / "changed"
        looking.wait_until(lambda: "now change\n" in looking.out.read_text(), LOOK_SECONDS_MAX)
        server.directories["calm-01"].put_user("user-new", userName="arrives-live@acme.example")
        changed.touch()
        print(looking.finish(LOOK_SECONDS_MAX).replace("now change\n", ""), end="")
    finally:
        service.kill()


def populate(directory):
    for number, name in enumerate(NAMES):
        directory.put_user(f"user-{number}", userName=name, displayName=name, active=True)
    directory.put_group("group-0", displayName=NAMES[1])
    for number in range(len(NAMES)):
        directory.join("group-0", f"user-{number}")


def configure(folder, services, server, port):
    text = f"""
[kafka]
brokers = ["{services.bootstrap}"]
topic_prefix = "page"
partitions = 4
replication = 1
[registry]
url = "{services.registry}"
[http]
listen = "127.0.0.1:{port}"
[defaults]
interval = "2s"
baseline = "events"
guard = {{ max_ratio = 1.0 }}
"""
    for account in ACCOUNTS:
        text += f"""
[[account]]
name = "{account}"
provider = "generic"
base_url = "{server.base_url(account)}"
token_env = "PAGE_TOKEN"
"""
        if account == "held":
            text += "guard = { min_losses = 1, max_ratio = 0.0 }\n"
    (folder / "scimtail.toml").write_text(text)


def scimtail(folder, *arguments, codes=(0,)):
    process = Process(arguments[0], [binary(), *arguments], folder, PAGE_TOKEN=TOKEN)
    return process.finish(COMMAND_SECONDS_MAX, codes)


def binary():
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    path = Path(os.environ.get("SCIMTAIL") or target / "debug/scimtail").absolute()
    if not path.exists():
        raise Failed(f"{path} is missing; → build it with `cargo build`, or name another program in SCIMTAIL")
    return path


def reached(port):
    try:
        with real.http().open(f"http://127.0.0.1:{port}/healthz", timeout=2):
            return True
    except OSError:
        return False


def labels(port):
    time.sleep(POLL_SECONDS)
    with real.http().open(f"http://127.0.0.1:{port}/status", timeout=10) as answer:
        accounts = json.load(answer)["accounts"]
    return {account["account"]: account["status"] for account in accounts}


def expected():
    special = {"held": "held", "paused": "paused", "failing": "failing"}
    return {account: special.get(account, "connected") for account in ACCOUNTS}


def modules():
    """A folder with look.mjs and what it imports."""
    place = CACHE.parent / "page"
    place.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "look.mjs"):
        shutil.copy(HERE / name, place / name)
    run("npm", ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], place, NPM_SECONDS_MAX)
    return place


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"error: {error}")
