# shellcheck shell=bash
# What scripts/up asks of the machine before it starts anything: ports, routes, memory, disk. Sourced after docker.sh.
# Reads /proc alone: a small system may have neither ss nor ip.
PROC=/proc # tests give a folder with tables of their own
BOOT=      # and one before /boot

# setting NAME DEFAULT [FILE]: a variable of env/ports.env, or FILE; the caller's environment goes before, as in Compose.
setting() {
    local value=${!1:-} file=${3:-env/ports.env}
    if [[ -z $value && -r $file ]]; then
        value=$(sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*//p" "$file" | tail -n 1)
        value=${value%%[[:space:]]#*}
        value=${value%"${value##*[![:space:]]}"}
        if [[ $value == \"*\" || $value == \'*\' ]]; then value=${value:1:-1}; fi
    fi
    printf '%s' "${value:-$2}"
}

# address_in_hex 192.0.2.1: as /proc/net/tcp has it, the octets backwards.
address_in_hex() {
    local a b c d
    IFS=. read -r a b c d <<<"$1"
    printf '%02X%02X%02X%02X' "$d" "$c" "$b" "$a"
}

# listener_on PORT ADDRESS: the inode of a socket that listens there already; ADDRESS empty: on any address.
listener_on() {
    local port address table local_address state inode found
    port=$(printf '%04X' "$1")
    address=
    if [[ $2 =~ ^[0-9.]+$ && $2 != 0.0.0.0 ]]; then address=$(address_in_hex "$2"); fi
    for table in $PROC/net/tcp $PROC/net/tcp6; do
        [[ -r $table ]] || continue
        while read -r _ local_address _ state _ _ _ _ _ inode _; do
            [[ $state == 0A && ${local_address##*:} == "$port" ]] || continue
            found=${local_address%:*}
            # A wildcard takes the port on every address; so does ours.
            if [[ -z $address || $found == "$address" || $found =~ ^0+$ || $found == *"0000FFFF0000$address" ]]; then
                printf '%s' "$inode"
                return
            fi
        done <"$table"
    done
}

# owner_of INODE: "name (pid 12)" of the process that holds a socket; empty where this user may not see it.
owner_of() {
    local link
    link=$(find $PROC/[0-9]*/fd -lname "socket:\[$1\]" -print -quit 2>/dev/null || true)
    [[ -n $link ]] || return 0
    link=${link#"$PROC"/}
    printf '%s (pid %s)' "$(cat "$PROC/${link%%/*}/comm" 2>/dev/null || echo process)" "${link%%/*}"
}

# What helps against the usual holders of mail's ports.
advice_for() { # OWNER PORT VARIABLE
    case $1 in
    exim4* | postfix* | master* | sendmail* | nullmailer* | opensmtpd* | smtpd*)
        local unit=${1%% *}
        [[ $unit != master ]] || unit=postfix
        printf "this system brought a mail server of its own: 'sudo systemctl disable --now %s' frees the port" "$unit"
        ;;
    dovecot*) printf "'sudo systemctl disable --now dovecot' frees the port" ;;
    docker-proxy*)
        printf 'the container %s has it' "$(docker ps --filter "publish=$2" --format '{{.Names}}' 2>/dev/null | head -n 1)"
        ;;
    *) printf 'stop it' ;;
    esac
    printf ', or set another %s in env/ports.env' "$3"
}

# ports_are_free PROJECT: every port that compose.yaml publishes can be opened; names who holds one that cannot.
ports_are_free() {
    local entry variable port address inode owner taken=
    local mine ids
    # A container that is being restarted keeps its ports, and is listed without them: its configuration tells.
    ids=$(docker ps -q --filter "label=com.docker.compose.project=$1" --filter status=running --filter status=restarting)
    # shellcheck disable=SC2086
    mine=$([[ -z $ids ]] || docker inspect --format '{{range .HostConfig.PortBindings}}{{range .}}:{{.HostPort}} {{end}}{{end}}' $ids)
    # On this machine's own network nothing is published: there a listener is told its addresses by variables.
    # shellcheck disable=SC2086
    [[ -z $ids ]] || mine+=" "$(docker inspect --format '{{if eq .HostConfig.NetworkMode "host"}}{{range .Config.Env}}{{println .}}{{end}}{{end}}' $ids |
        sed -n 's/^[A-Z_]*_LISTEN=//p' | sed 's/,/ /g; s/$/ /' | tr -d '\n')
    for entry in SMTP_PORT:25 PROXY_PORT:10025 SUBMISSIONS_PORT:465 SUBMISSION_PORT:587 IMAPS_PORT:993 IMAP_PORT:143 ADMIN_PORT:8080; do
        variable=${entry%:*}
        port=$(setting "$variable" "${entry#*:}")
        [[ $port =~ ^[1-9][0-9]{0,4}$ && $port -le 65535 ]] ||
            die "$variable='$port' (env/ports.env) is not allowed: a whole number from 1 to 65535"
        [[ $mine != *":$port "* ]] || continue
        address=$(setting BIND_ADDRESS "")
        [[ $variable != ADMIN_PORT ]] || address=$(setting ADMIN_BIND 127.0.0.1)
        [[ $variable != PROXY_PORT ]] || address=$(setting PROXY_BIND 127.0.0.1)
        inode=$(listener_on "$port" "$address")
        [[ -n $inode ]] || continue
        owner=$(owner_of "$inode")
        warn "port $port ($variable) is taken by ${owner:-another process}: $(advice_for "$owner" "$port" "$variable")"
        taken=1
    done
    [[ -z $taken ]] || die "the stack was not started; nothing was changed"
}

# first_address: an address by which other machines may reach this one; empty where there is none.
first_address() { hostname -I 2>/dev/null | awk '{print $1}'; }

# page_address BIND PORT: where the admin page is. Beyond loopback it has TLS (services/admin/entrance.py).
page_address() {
    local host=$1 scheme=https
    case $host in
    127.* | ::1 | '[::1]') scheme=http ;;
    0.0.0.0 | :: | '[::]')
        host=$(first_address)
        host=${host:-$(hostname)}
        ;;
    esac
    if [[ $host == *:* && $host != \[* ]]; then host="[$host]"; fi
    printf '%s://%s:%s/' "$scheme" "$host" "$2"
}

# subnet_is_free A.B.C: no route of this machine leads into A.B.C.0/24.
subnet_is_free() {
    local a b c interface destination mask network wanted
    IFS=. read -r a b c <<<"$1"
    wanted=$((a << 24 | b << 16 | c << 8))
    while read -r interface destination _ _ _ _ _ mask _; do
        [[ $interface != Iface && $mask != 00000000 ]] || continue
        # Little-endian in the table.
        destination=$((16#${destination:6:2}${destination:4:2}${destination:2:2}${destination:0:2}))
        mask=$((16#${mask:6:2}${mask:4:2}${mask:2:2}${mask:0:2}))
        network=$((mask & 0xFFFFFF00))
        if (((destination & network) == (wanted & network))); then return 1; fi
    done <$PROC/net/route
}

# choose_subnet PROJECT: keeps the stack's networks off the machine's own; the choice is written to env/ports.env.
choose_subnet() {
    [[ -z $(docker network ls -q --filter "label=com.docker.compose.project=$1") ]] || return 0
    local wanted candidate
    wanted=$(setting MAILSTEAD_SUBNET "")
    [[ ${wanted:-10.214.81} =~ ^[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$ ]] ||
        die "MAILSTEAD_SUBNET='$wanted' (env/ports.env) is not allowed: three numbers such as 10.214.81"
    subnet_is_free "${wanted:-10.214.81}" && return
    [[ -z $wanted ]] || die "MAILSTEAD_SUBNET=$wanted: this machine has a route into $wanted.0/24 already; choose another"
    for candidate in 10.214.{82..99} 10.87.{100..120} 172.29.{200..220} 192.168.{210..230}; do
        subnet_is_free "$candidate" || continue
        say "10.214.81.0/24 is in use on this machine: the stack takes $candidate.0/24 (MAILSTEAD_SUBNET in env/ports.env)"
        sed -i "s/^#\{0,1\}MAILSTEAD_SUBNET=.*/MAILSTEAD_SUBNET=$candidate/" env/ports.env
        grep -q '^MAILSTEAD_SUBNET=' env/ports.env || printf '\nMAILSTEAD_SUBNET=%s\n' "$candidate" >>env/ports.env
        return
    done
    die "no free network was found: set MAILSTEAD_SUBNET in env/ports.env"
}

# kernel_line: where this machine's kernel gets its command line from.
kernel_line() {
    local file
    for file in /boot/firmware/cmdline.txt /boot/cmdline.txt; do
        [[ ! -e $BOOT$file ]] || { printf '%s' "$file" && return; }
    done
    printf 'GRUB_CMDLINE_LINUX of /etc/default/grub'
}

# enough_room: refuses a machine on which the stack cannot work, warns of one on which it is tight.
enough_room() {
    case $(uname -m) in
    x86_64 | aarch64) ;;
    *) die "$(uname -m) is not supported: x86_64 and aarch64 are (a 64-bit system on a Raspberry Pi)" ;;
    esac
    local memory disk
    memory=$(($(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' $PROC/meminfo) / 1024))
    ((memory >= 300)) || warn "only $memory MiB of memory are free; the stack needs about 250"
    disk=$(($(df -Pk "$(docker info --format '{{.DockerRootDir}}' 2>/dev/null || echo /)" 2>/dev/null | awk 'NR==2 {print $4}') / 1024))
    ((disk >= 600)) || die "only $disk MiB are free on the disk with Docker's data: images and build need 600"
    # Raspberry Pi OS leaves the memory controller out; Docker then passes over mem_limit, and all else works.
    [[ $(docker info --format '{{.MemoryLimit}}' 2>/dev/null) != false ]] ||
        warn "this kernel limits no container's memory (mem_limit is ignored): add 'cgroup_enable=memory cgroup_memory=1' to the line in $(kernel_line) and reboot"
    ((disk >= 2000)) || warn "only $disk MiB are free on the disk with Docker's data: mail needs room too"
}
