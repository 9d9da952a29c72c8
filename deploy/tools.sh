# shellcheck shell=bash
# For the checks beside this file, which source it: where they find their tools. What is missing is installed below
# target/deploy, or where apt-get can.
set -euo pipefail

deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$deploy/../target}")
tools=$target/deploy
mkdir -p "$tools/bin"
# Gone when the check ends. What is finished moves out of it.
work=$(mktemp -d "$tools/work-XXXXXX")
trap 'rm -rf "$work"' EXIT

fail() { echo "$*" >&2; exit 1; }

need() { # command, Debian packages
    command -v "$1" >/dev/null && return
    echo "installing $2"
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends $2 >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends $2 >/dev/null; } ||
        fail "$1 is missing; → install $2"
}

need_go() { command -v go >/dev/null || fail "go is missing; → install Go 1.26 or newer"; }

program_of_go() { # name, package@version: prints the path of the built program
    local built=$tools/bin/$1-${2##*@}
    if [ ! -x "$built" ]; then
        need_go
        echo "building ${2%@*}" >&2
        mkdir -p "$work/bin"
        (cd "$work" && GOBIN=$work/bin GOFLAGS=-mod=mod go install "$2") >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "$2 cannot be built"; }
        mv -T "$work"/bin/* "$built"
    fi
    echo "$built"
}

module_of_go() { # module@version: prints its folder
    (cd "$tools" && GOFLAGS=-mod=mod go mod download -json "$1") | sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p'
}

# The program that the checks let read each configuration. `cargo test` and `cargo build` make it.
scimtail=${SCIMTAIL:-$target/debug/scimtail}
need_scimtail() {
    [ -x "$scimtail" ] || fail "$scimtail is missing; → cargo build, or name another program in SCIMTAIL"
}
