"""The physical limits of this run: what the bare libraries need for the same bytes."""

import json
import subprocess

import service
import vendor as vendors
from processes import Failed
from stage import drop, say

LIMIT_SECONDS_MAX = 300
WALKS = {
    "L0 download": "download",
    "L1 typed parse": "typed",
    "L2 split and hash": "raw",
    "L2* rows at their place": "places",
}
FLEET = "L2 of 1,000 accounts"
# Records of a transaction, and transactions.
COMMITS = ((1, 60), (100, 60), (1_000, 60))


def measured(stage, name, *arguments):
    command = [str(part) for part in (stage.tools / "limits", *arguments)]
    done = subprocess.run(
        vendors.bound(command), capture_output=True, text=True, timeout=LIMIT_SECONDS_MAX
    )
    if done.returncode != 0:
        raise Failed(f"the limit {name} cannot be measured: {done.stderr[-2000:]}")
    figures = json.loads(done.stdout)
    stage.results.limit(name, figures)
    say(f"{name}: {figures['wall']:.3f} s, {figures['cpu']:.3f} CPU s")
    return figures


def walks(stage, vendor):
    for name, how in WALKS.items():
        measured(stage, name, "walk", vendor.base_url, vendors.TOKEN, vendor.size.page, how)


def fleet(stage, vendor, accounts):
    measured(stage, FLEET, "fleet", vendor.base_url, vendors.TOKEN, vendor.size.page, accounts)


def produce(stage, setup, vendor, what):
    """L3, with the records of `setup`."""
    target = service.prepared(stage, setup.binary, vendor)
    name = f"L3 produce {what}"
    measured(stage, name, "produce", stage.bootstrap, setup.prefix, target.prefix, what)
    drop(stage, target.prefix)


def consume(stage, setup):
    measured(stage, "L4 consume state", "consume", stage.bootstrap, setup.prefix)


def commits(stage):
    """L5. The load server is only for the configuration that topics are created with."""
    binary = next(iter(stage.binaries.values()))
    with vendors.running(stage.tools, vendors.Size(1, 0, 0)) as vendor:
        for records, transactions in COMMITS:
            target = service.prepared(stage, binary, vendor)
            name = f"L5 transactions of {records:,}"
            command = ("commit", stage.bootstrap, target.prefix, records, transactions)
            figures = measured(stage, name, *command)
            figures["each_ms"] = figures["wall"] / transactions * 1_000
            drop(stage, target.prefix)
