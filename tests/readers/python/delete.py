"""Delete topics, and wait until they are gone: only then can others by their names be created."""

import argparse
import time

from confluent_kafka.admin import AdminClient

ADMIN_SECONDS_MAX = 30
POLL_SECONDS = 0.1


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bootstrap", required=True)
    arguments.add_argument("topics", nargs="+")
    arguments = arguments.parse_args()
    admin = AdminClient({"bootstrap.servers": arguments.bootstrap})
    for done in admin.delete_topics(
        arguments.topics, operation_timeout=ADMIN_SECONDS_MAX
    ).values():
        done.result()
    deadline = time.monotonic() + ADMIN_SECONDS_MAX
    while set(arguments.topics) & set(admin.list_topics(timeout=ADMIN_SECONDS_MAX).topics):
        if time.monotonic() > deadline:
            raise TimeoutError("the topics are still there")
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
