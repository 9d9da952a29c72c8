"""Writes the schemas of Kubernetes where kubeconform finds them: schemas.py FOLDER VERSION..."""

import json
import pathlib
import sys

import kubernetes_validate

shipped = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
folder, *versions = sys.argv[1:]
for version in versions:
    written = pathlib.Path(folder) / f"v{version}"
    written.mkdir()
    for file in (shipped / f"v{version}-local-strict").glob("*.json"):
        # They name each other by addresses of a web server. Here they are files beside each other.
        schema = json.loads(file.read_text().replace('"/api/_definitions.json#', '"_definitions.json#'))
        schema.pop("$id", None)
        (written / file.name).write_text(json.dumps(schema))
