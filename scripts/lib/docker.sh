# shellcheck shell=bash
# What every script needs of Docker: an engine that answers, Compose v2, the base image, and the sum that says whether
# an image is still made from this source. Sourced, never run. Called by scripts/up, test, backup, restore.
# Uses what the machine has and installs from the distribution's own packages; never adds a repository to the machine.

# Compose 2.24 is the first that reads `env_file: required: false`.
LEAST_COMPOSE=2.24
BASE_IMAGE=debian:trixie-slim
SOCKET=/var/run/docker.sock # tests give one that is not there
# The release whose packages hold Compose v2, for machines whose own release has only version 1.
COMPOSE_RELEASE=trixie

# A second stack is named so for every script alike: a backup or a restore of the first one by mistake is no small thing.
[[ -z ${MAILSTEAD_PROJECT:-} ]] || export COMPOSE_PROJECT_NAME=$MAILSTEAD_PROJECT

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# as_root COMMAND...: as it is for root, by sudo for others.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root and there is no sudo: run it as root ($*)"
    fi
}

# quietly COMMAND...: its output is shown only if it fails.
quietly() {
    local output
    output=$("$@" 2>&1 </dev/null) || {
        printf '%s\n' "$output" | tail -n 20 >&2
        return 1
    }
}

# version_at_least HAVE WANTED: compares dotted numbers.
version_at_least() {
    [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

apt_install() {
    command -v apt-get >/dev/null ||
        die "this machine has no apt-get: install Docker and Compose v2 ($LEAST_COMPOSE or newer) by hand, then run this again"
    if [[ -z ${APT_UPDATED:-} ]]; then
        quietly as_root apt-get update || die "apt-get update failed: is the network up?"
        APT_UPDATED=1
    fi
    say "installing: $*"
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
        die "apt-get install $* failed"
}

# apt_has PACKAGE [LEAST]: the distribution offers it, in that version at least.
apt_has() {
    local candidate
    candidate=$(apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: //p')
    [[ -n $candidate && $candidate != "(none)" ]] && version_at_least "${candidate#*:}" "${2:-0}"
}

engine_answers() { docker info >/dev/null 2>&1; }

# A socket that is there but closed to this user is the commonest first failure: one line that says what helps.
refuse_without_socket() {
    local user
    user=$(id -un)
    if [[ -S $SOCKET && ! -w $SOCKET ]]; then
        die "user $user may not use Docker's socket: run 'sudo $0', or 'sudo usermod -aG docker $user' and log in again"
    fi
}

start_engine() {
    if [[ -d /run/systemd/system ]]; then
        quietly as_root systemctl enable --now docker || die "systemd cannot start docker: see \`journalctl -u docker\`"
    else
        # No systemd (a container, a small board's own init): the engine is started as it is, and stays after us.
        say "starting dockerd (its log: /var/log/dockerd.log)"
        as_root sh -c 'setsid dockerd >>/var/log/dockerd.log 2>&1 </dev/null &'
    fi
    local tries
    for ((tries = 0; tries < 120; tries++)); do
        engine_answers && return
        # shellcheck disable=SC2024
        if ((EUID != 0)) && [[ -S $SOCKET && ! -w $SOCKET ]]; then return; fi
        sleep 0.5
    done
    die "the Docker engine did not answer within a minute: see \`journalctl -u docker\` or /var/log/dockerd.log"
}

# An engine that answers: the one that is there, else the distribution's.
ensure_engine() {
    engine_answers && return
    if ! command -v dockerd >/dev/null && ! [[ -S $SOCKET ]]; then
        local packages=(docker.io iptables ca-certificates)
        command -v apt-get >/dev/null && quietly as_root apt-get update && APT_UPDATED=1
        # Debian 13 keeps the command line in a package of its own.
        ! apt_has docker-cli || packages+=(docker-cli)
        apt_install "${packages[@]}"
    fi
    if ((EUID == 0)) || ! [[ -S $SOCKET ]]; then start_engine; fi
    engine_answers || refuse_without_socket
    engine_answers || die "Docker is installed but does not answer: $(docker info 2>&1 | tail -n 1)"
}

# The plugin's version, empty without one (some clients say "unknown command" on standard output).
compose_version() { docker compose version --short 2>/dev/null | sed -n 's/^v\{0,1\}\([0-9][0-9.]*\).*/\1/p' || true; }

# Compose v2 as a plugin of the docker command: from the distribution, else from Debian 13's packages.
ensure_compose() {
    local version
    version=$(compose_version)
    if [[ -z $version ]]; then
        command -v apt-get >/dev/null && [[ -z ${APT_UPDATED:-} ]] && quietly as_root apt-get update && APT_UPDATED=1
        if apt_has docker-compose-v2; then
            apt_install docker-compose-v2 docker-buildx
        elif apt_has docker-compose 2; then
            apt_install docker-compose docker-buildx
        else
            compose_of_next_release
        fi
        version=$(compose_version)
    fi
    [[ -n $version ]] || die "Docker Compose v2 is missing and could not be installed from packages: install its plugin by hand"
    version_at_least "$version" "$LEAST_COMPOSE" ||
        die "Docker Compose $version is too old: $LEAST_COMPOSE or newer is needed"
}

# Debian 12 packages only Compose 1. Debian 13's two plugins are single programs that need libc6 2.34: they are taken
# out of its packages by an apt configuration of their own (the machine's own sources with the release's name replaced),
# so that nothing else of that release can reach this machine.
compose_of_next_release() {
    local codename libc work file
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    libc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/.* //')
    if [[ $(sed -n 's/^ID=//p' /etc/os-release) != debian || -z $codename ]] || ! version_at_least "${libc:-0}" 2.34; then
        die "this system has no package of Docker Compose v2: install the docker-compose-plugin by hand, then run this again"
    fi
    work=$(mktemp -d)
    mkdir -p "$work"/{lists/partial,cache/archives/partial,parts,unpacked}
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        if ! [[ -r $file ]] || ! grep -q "[/ ]debian" "$file" || ! grep -qw "$codename" "$file"; then continue; fi
        # Backports of the next release are neither needed nor always there.
        sed "s/\b$codename-backports[a-z-]*\b//g; s/\b$codename\b/$COMPOSE_RELEASE/g" "$file" |
            sed '/^deb \(\[.*\] *\)\?[^ ]* *main/d' >"$work/parts/$(basename "$file")"
    done
    local options=(
        -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$work/parts" -o "Dir::State::Lists=$work/lists"
        -o "Dir::Cache=$work/cache" -o "Dir::State::status=/dev/null" -o "APT::Sandbox::User=root" -o "Acquire::Languages=none"
    )
    say "installing: Compose v2 and buildx from Debian $COMPOSE_RELEASE's packages (this release has only Compose 1)"
    quietly apt-get "${options[@]}" update || die "cannot read Debian $COMPOSE_RELEASE's package lists"
    (cd "$work" && quietly apt-get "${options[@]}" download docker-compose docker-buildx) ||
        die "cannot download docker-compose and docker-buildx of Debian $COMPOSE_RELEASE"
    for file in "$work"/*.deb; do dpkg -x "$file" "$work/unpacked"; done
    as_root mkdir -p /usr/libexec/docker/cli-plugins
    as_root cp "$work"/unpacked/usr/libexec/docker/cli-plugins/* /usr/libexec/docker/cli-plugins/
    rm -rf "$work"
}

# ensure_base_image FOLDER: debian:trixie-slim is here, from the registry or made from packages by FOLDER/base-image.
ensure_base_image() {
    docker image inspect "$BASE_IMAGE" >/dev/null 2>&1 && return
    say "getting the base image $BASE_IMAGE"
    # An unreachable registry must not hold a first start for minutes.
    timeout 120 docker pull -q "$BASE_IMAGE" >/dev/null 2>&1 && return
    say "no registry has it within reach: making it from Debian's packages"
    "$1/base-image"
}

# source_sum PATH...: one sum over the names, modes and contents of what an image is made from.
source_sum() {
    local path
    for path in "$@"; do
        find "$path" -name __pycache__ -prune -o -name '*.pyc' -prune -o -type f -printf '%m %p\0'
    done | LC_ALL=C sort -z | while IFS= read -r -d '' path; do
        printf '%s ' "$path"
        sha256sum <"${path#* }"
    done | sha256sum | cut -c 1-32
}

# image_source IMAGE: the sum that a local image was built from, empty without one.
image_source() {
    docker image inspect --format '{{index .Config.Labels "mailstead.source"}}' "$1" 2>/dev/null || true
}
