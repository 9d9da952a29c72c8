# Sourced by tests/cluster/run and tests/soak/run, with their name in `suite` and the folder tests in `tests`. Makes the
# Python environment of both below target/cluster, once, names its interpreter in `python`, and exports PYTHONPATH.
cluster=${CARGO_TARGET_DIR:-$tests/../target}/cluster
requirements=$tests/cluster/requirements.txt

if ! python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "$suite needs Python 3.11 or newer with venv: apt-get install python3 python3-venv" >&2
    exit 1
fi
mkdir -p "$cluster"
environment=$cluster/python-$(python3 -c 'import hashlib, sys
print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest()[:16])' "$requirements")
if [ ! -e "$environment" ]; then
    # Built aside and renamed: an installation that breaks off leaves nothing that looks finished.
    building=$(mktemp -d "$cluster/python-XXXXXX-unfinished")
    trap 'rm -rf "$building"' EXIT
    python3 -m venv "$building"
    "$building/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements"
    mv -T "$building" "$environment"
    trap - EXIT
fi
python=$environment/bin/python
# Processes and services of tests/readers, and the checker of the crash matrix.
export PYTHONPATH=$tests/readers:$tests/it/crash_matrix:$tests/it PYTHONDONTWRITEBYTECODE=1
