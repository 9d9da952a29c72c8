# Sourced by ./demo, ./test and .ci/run. Finds out what is missing, and installs it where a package manager can.
# shellcheck shell=bash
#
#   need COMMAND DEBIAN FEDORA ALPINE HOMEBREW   notes the packages of a command that is missing; `a|b` is the first one
#                                                that there is, `-` none
#   install_missing                              asks once, installs, and stops if a command is still missing
#   need_rust                                    the same for Rust; sets FEATURES for cargo
#   use_system_openssl                           saves building it, where it is

# With it, Amazon's crates need a newer Rust than the rest (Cargo.toml).
RUST_FOR_ALL=1.94.1
# shellcheck disable=SC2034
FEATURES=''

say() { printf '%s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

ABSENT='' WANTED='' ASK=yes
# Without a person at a terminal, root and CI install; anything else stops and says what to install.
if [ -n "${CI:-}" ] || { [ "$(id -u)" = 0 ] && ! [ -t 0 ]; }; then ASK=no; fi

manager() {
    for name in apt-get dnf apk brew; do
        if command -v $name >/dev/null; then echo $name; return; fi
    done
}
MANAGER=$(manager)

# Homebrew keeps its JDK, and rustup its programs, beside the path.
export PATH="${HOME:-/root}/.cargo/bin:/opt/homebrew/opt/openjdk/bin:/usr/local/opt/openjdk/bin:/opt/homebrew/opt/rustup/bin:/usr/local/opt/rustup/bin:$PATH"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# macOS has commands that only say that there is none.
works() {
    case $1 in
        javac) javac -version >/dev/null 2>&1 ;;
        cc) cc --version >/dev/null 2>&1 ;;
        venv) python3 -c 'import venv, ensurepip' 2>/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

need() {
    if works "$1"; then return; fi
    ABSENT="$ABSENT $1"
    case $MANAGER in
        apt-get) WANTED="$WANTED $2" ;;
        dnf) WANTED="$WANTED $3" ;;
        apk) WANTED="$WANTED $4" ;;
        brew) WANTED="$WANTED $5" ;;
    esac
}

# The first of `a|b` that the package lists have.
first() {
    local name
    for name in ${1//|/ }; do
        if [ "$(apt-cache policy "$name" 2>/dev/null | sed -n 's/ *Candidate: //p')" != "(none)" ] &&
            apt-cache show "$name" >/dev/null 2>&1; then echo "$name"; return; fi
    done
    echo "${1%%|*}"
}

install() { # packages
    case $MANAGER in
        apt-get)
            as_root apt-get update -qq
            local packages='' name
            for name in "$@"; do packages="$packages $(first "$name")"; done
            # shellcheck disable=SC2086
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
            ;;
        dnf) as_root dnf install -y -q "$@" ;;
        apk) as_root apk add --quiet "$@" ;;
        brew) brew install --quiet "$@" ;;
    esac
}

may_install() { # packages, as words
    local answer words="${*//|/ or }"
    if [ $ASK = no ]; then say "installing: $words"; return; fi
    if ! [ -t 0 ]; then stop "missing: $words; → install them, or run this again with --yes"; fi
    read -r -p "Install $words with $MANAGER? [Y/n] " answer
    case $answer in [nN]*) stop "nothing was installed; → install $words, and run this again" ;; esac
}

install_missing() {
    local packages='' name
    if [ -z "$ABSENT" ]; then return; fi
    for name in $WANTED; do if [ "$name" != - ]; then packages="$packages $name"; fi; done
    if [ -n "$packages" ]; then
        may_install "${packages# }"
        # shellcheck disable=SC2086
        install $packages >&2 || stop "$MANAGER cannot install$packages; → see its message above"
    fi
    for name in $ABSENT; do works "$name" || stop "$name is missing; → $(by_hand "$name")"; done
    ABSENT='' WANTED=''
}

by_hand() { # command
    case $1-$(uname) in
        cc-Darwin) echo "xcode-select --install" ;;
        javac-*) echo "install a JDK 17 or newer: https://adoptium.net" ;;
        mvn-*) echo "install Maven: https://maven.apache.org/download.cgi, and put its bin on the path" ;;
        python3-* | venv-*) echo "install Python 3.11 or newer, with venv" ;;
        *) echo "install a package that has the command $1" ;;
    esac
}

need_c() {
    need cc "build-essential pkg-config libssl-dev" "gcc gcc-c++ make" build-base -
    need make build-essential make make -
    # OpenSSL is built where the system has none to link with.
    need perl perl perl-core "perl linux-headers" perl
}

use_system_openssl() {
    if pkg-config --exists openssl 2>/dev/null; then export OPENSSL_NO_VENDOR=1; fi
}

at_least() { # version, minimum
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

rust_version() { { rustc --version 2>/dev/null || true; } | cut -d ' ' -f 2; }

need_rust() {
    local minimum found
    minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(rust_version)
    if [ -z "$found" ] || ! at_least "$found" "$minimum"; then
        get_rust || rust_by_hand "$minimum" "$found"
        hash -r
        found=$(rust_version)
        if [ -z "$found" ] || ! at_least "$found" "$minimum"; then rust_by_hand "$minimum" "$found"; fi
    fi
    if ! at_least "$found" $RUST_FOR_ALL; then
        # shellcheck disable=SC2034
        FEATURES=--no-default-features
        say "Rust $found builds scimtail without logins to Amazon MSK; they need Rust $RUST_FOR_ALL."
    fi
}

# Rust by rustup, which the distribution may have as a package.
get_rust() {
    local packages
    if ! command -v rustup >/dev/null && ! command -v rustup-init >/dev/null; then
        case $MANAGER in
            apt-get)
                if ! apt-cache show rustup >/dev/null 2>&1; then as_root apt-get update -qq || return; fi
                # Debian has it since 13, Ubuntu since 24.04.
                apt-cache show rustup >/dev/null 2>&1 || return
                packages="rustup ca-certificates"
                ;;
            dnf | apk | brew) packages=rustup ;;
            *) return 1 ;;
        esac
        may_install "$packages (and Rust with it)"
        # shellcheck disable=SC2086
        install $packages >&2 || return
    fi
    if command -v rustup >/dev/null; then
        rustup toolchain install stable --profile minimal --component clippy --component rustfmt >&2 &&
            rustup default stable >&2
    else
        rustup-init -y --profile minimal --component clippy --component rustfmt >&2
    fi
}

rust_by_hand() { # minimum, what was found
    stop "Rust $1 or newer is needed, ${2:-none} was found, and it could not be installed here.
→ curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
  It fetches from https://static.rust-lang.org. Where that is not reachable, RUSTUP_DIST_SERVER names a mirror.
  Then run this again."
}
