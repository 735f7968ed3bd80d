# shellcheck shell=bash
# Which scanners run beside smtp-in: SPAM_SCANNER and VIRUS_SCANNER in env/filter.env. Sourced after docker.sh and
# machine.sh by scripts/up. The choice is kept as COMPOSE_PROFILES in env/ports.env, so that `docker compose up -d` typed
# alone keeps it.

SCANNERS=(rspamd spamassassin clamav)

# chosen_scanners: their names, one a line; refuses a name that is none.
chosen_scanners() {
    local spam virus
    spam=$(setting SPAM_SCANNER "" env/filter.env)
    virus=$(setting VIRUS_SCANNER "" env/filter.env)
    case $spam in
    "") ;;
    rspamd | spamassassin) printf '%s\n' "$spam" ;;
    *) die "SPAM_SCANNER='$spam' (env/filter.env) is not allowed: one of rspamd, spamassassin, or nothing" ;;
    esac
    case $virus in
    "") ;;
    clamav) printf '%s\n' "$virus" ;;
    *) die "VIRUS_SCANNER='$virus' (env/filter.env) is not allowed: clamav, or nothing" ;;
    esac
}

# choose_scanners PROJECT: holds COMPOSE_PROFILES to the settings, beside whatever else the owner put there; stops those
# that are not wanted any more. A COMPOSE_PROFILES in the environment is its owner's own choice and is left alone.
choose_scanners() {
    local each name now wanted=() list chosen=() ids
    list=$(chosen_scanners) # a refusal in a subshell must end this one too
    mapfile -t chosen < <(printf '%s' "$list")
    if [[ -z ${COMPOSE_PROFILES:-} ]]; then
        now=$(setting COMPOSE_PROFILES "")
        IFS=, read -r -a wanted <<<"$now"
        for name in "${SCANNERS[@]}"; do
            for each in "${!wanted[@]}"; do [[ ${wanted[each]} != "$name" ]] || unset "wanted[each]"; done
        done
        list=$(IFS=, && printf '%s' "${wanted[*]}${wanted[*]:+${chosen[*]:+,}}${chosen[*]}")
        if [[ $now != "$list" ]]; then
            sed -i '/^COMPOSE_PROFILES=/d' env/ports.env
            [[ -z $list ]] || printf 'COMPOSE_PROFILES=%s\n' "$list" >>env/ports.env
            # shellcheck disable=SC2034 # scripts/up tells by it whether anything was done
            changed=1
        fi
        for name in "${SCANNERS[@]}"; do
            [[ " ${chosen[*]} " != *" $name "* ]] || continue
            ids=$(docker ps -aq --filter "label=com.docker.compose.project=$1" --filter "label=com.docker.compose.service=$name")
            # shellcheck disable=SC2086
            [[ -z $ids ]] || quietly docker rm -f $ids || die "the container of $name could not be removed"
        done
    fi
    # shellcheck disable=SC2034 # scripts/up builds their images
    scanners=("${chosen[@]}")
}
