# shellcheck shell=bash
# How the listeners meet the world: bridges, bridges with IPv6, or this machine's own network. Sourced after docker.sh and
# machine.sh by scripts/up. The choice is COMPOSE_FILE in env/ports.env, so that `docker compose up -d` typed alone keeps
# it. What each way costs: docs/network.md.

# The engine from which on a bridge's IPv6 is carried by rules of the kernel without being asked to (ip6tables).
IPV6_ENGINE=27

# public_ipv6: the first IPv6 address of this machine that the internet knows (2000::/3), empty without one.
public_ipv6() {
    [[ -r $PROC/net/if_inet6 ]] || return 0
    sed -n 's/^\([23][0-9a-f]\{31\}\) [0-9a-f]* [0-9a-f]* 00 .*/\1/p' "$PROC/net/if_inet6" | head -n 1 |
        sed 's/..../&:/g; s/:$//'
}

# takes_ipv6 ADDRESS: with BIND_ADDRESS=ADDRESS, may IPv6 peers from outside reach this machine's ports?
takes_ipv6() {
    case $1 in
    "" | ::) [[ -n $(public_ipv6) ]] ;;
    ::1) return 1 ;;
    *:*) return 0 ;;
    *) return 1 ;;
    esac
}

# listed FILE: it is one of COMPOSE_FILE's.
listed() { [[ :$(setting COMPOSE_FILE compose.yaml): == *:$1:* ]]; }

# files_with OVERLAY: COMPOSE_FILE with this one of our two overlays ("" for neither) and whatever else the owner put there.
files_with() {
    local each files=()
    IFS=: read -r -a files <<<"$(setting COMPOSE_FILE compose.yaml)"
    local list=
    for each in "${files[@]}"; do
        [[ $each != compose.host.yaml && $each != compose.ipv6.yaml ]] || continue
        list+=${list:+:}$each
        [[ $each != compose.yaml || -z $1 ]] || list+=:$1
    done
    printf '%s' "$list"
}

# choose_network PROJECT: holds COMPOSE_FILE to NETWORK_MODE and to what this engine can; says what does not work.
# NETWORK is then host, ipv6 or bridge. A COMPOSE_FILE in the environment is its owner's own choice and is left alone.
choose_network() {
    local mode address engine now wanted overlay=
    mode=$(setting NETWORK_MODE auto)
    address=$(setting BIND_ADDRESS "")
    [[ $mode == auto || $mode == bridge || $mode == host ]] ||
        die "NETWORK_MODE='$mode' (env/ports.env) is not allowed: one of auto, bridge, host"
    if [[ -z ${COMPOSE_FILE:-} ]]; then
        engine=$(docker version --format '{{.Server.Version}}' 2>/dev/null || true)
        if [[ $mode == host ]]; then
            overlay=compose.host.yaml
        elif takes_ipv6 "$address"; then
            if version_at_least "${engine%%[^0-9.]*}" "$IPV6_ENGINE"; then
                overlay=compose.ipv6.yaml
            elif [[ $mode == auto ]]; then
                warn "with Docker ${engine%%[^0-9.]*} all IPv6 peers arrive as one address, so none of them is banned or told apart."
                warn "env/ports.env: NETWORK_MODE=host shows their own, BIND_ADDRESS=0.0.0.0 takes IPv4 alone, NETWORK_MODE=bridge leaves it so."
            fi
        fi
        now=$(setting COMPOSE_FILE compose.yaml)
        wanted=$(files_with "$overlay")
        [[ $now == "$wanted" ]] || change_network "$1" "$wanted"
    fi
    NETWORK=bridge
    ! listed compose.ipv6.yaml || NETWORK=ipv6
    ! listed compose.host.yaml || NETWORK=host
}

# change_network PROJECT FILES: a network cannot be changed under a running container, so what runs ends first.
change_network() {
    if [[ -n $(docker ps -aq --filter "label=com.docker.compose.project=$1") ]]; then
        say "the stack's networks change: it is stopped for that"
        quietly docker compose --progress quiet down || die "Compose could not stop the stack; nothing was changed"
    fi
    sed -i '/^COMPOSE_FILE=/d' env/ports.env
    [[ $2 == compose.yaml ]] || printf 'COMPOSE_FILE=%s\n' "$2" >>env/ports.env
    # shellcheck disable=SC2034 # scripts/up tells by it whether anything was done
    changed=1
}

# say_network: one line on which way it is.
say_network() {
    case $NETWORK in
    host)
        say "Network: the listeners are on this machine's own network (NETWORK_MODE=host). Every peer's true address is seen;"
        say "         they are less apart from this machine than on bridges: docs/network.md"
        ;;
    ipv6) say "Network: bridges with IPv6; every peer's true address is seen." ;;
    bridge) say "Network: bridges; IPv4 peers' true addresses are seen (IPv6: docs/network.md)." ;;
    esac
}

# neighbours_meet ADMIN: on this machine's own network a firewall may stand between the stack's rooms.
neighbours_meet() {
    [[ $NETWORK == host ]] || return 0
    timeout 10 docker exec "$1" bash -c '</dev/tcp/smtp-in/20080' 2>/dev/null && return
    local subnet
    subnet=$(setting MAILSTEAD_SUBNET 10.214.81).0/24
    die "a firewall of this machine keeps the stack's rooms apart: let $subnet in (ufw allow from $subnet to $subnet), or set NETWORK_MODE=bridge"
}
