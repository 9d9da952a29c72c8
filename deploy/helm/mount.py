"""Lays out the configuration of a rendered chart (standard input) as its pods see it: mount.py FOLDER

FOLDER stands for /etc/scimtail: the link of the image, and the two ConfigMaps below it."""

import pathlib
import sys

import yaml

folder = pathlib.Path(sys.argv[1])
maps = {}
for thing in yaml.safe_load_all(sys.stdin):
    if thing and thing["kind"] == "ConfigMap":
        maps[thing["metadata"]["name"]] = thing["data"]
    if thing and thing["kind"] == "Deployment":
        pod = thing["spec"]["template"]["spec"]
volumes = {volume["name"]: volume for volume in pod["volumes"]}
for mount in pod["containers"][0]["volumeMounts"]:
    path = pathlib.PurePath(mount["mountPath"])
    if not path.is_relative_to("/etc/scimtail"):
        continue
    volume = volumes[mount["name"]]
    sources = volume["projected"]["sources"] if "projected" in volume else [volume]
    # As the kubelet does it: the files are links into a folder that is replaced as a whole.
    place = folder / path.relative_to("/etc/scimtail")
    (place / "..1").mkdir(parents=True)
    (place / "..data").symlink_to("..1")
    for source in sources:
        # The others exist only in the cluster.
        for name, text in maps.get(source["configMap"]["name"], {}).items():
            (place / "..1" / name).write_text(text)
            (place / name).symlink_to(f"..data/{name}")
