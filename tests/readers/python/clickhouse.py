"""Give ClickHouse, inside this process, the statements of a file, and print each row that a query then finds and that
was not there before, as one object of JSON. It does not end: the tables go on reading."""

import argparse
import time
from pathlib import Path

from chdb.session import Session

POLL_SECONDS = 0.3


def give(session, statement):
    try:
        session.query(statement)
    except Exception as error:
        # Inside a process ClickHouse says this of every table of Kafka that it has created. What is read shows that the
        # table works.
        if "ENGINE = Kafka" not in statement or "Shutdown was called" not in str(error):
            raise


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("statements", type=Path)
    arguments.add_argument("query")
    arguments.add_argument("folder", help="for the tables")
    arguments = arguments.parse_args()
    session = Session(arguments.folder)
    for statement in arguments.statements.read_text().split(";\n"):
        if statement.strip():
            give(session, statement)
    known = set()
    while True:
        rows = str(session.query(arguments.query, "JSONEachRow")).splitlines()
        for row in rows:
            if row not in known:
                print(row, flush=True)
                known.add(row)
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
