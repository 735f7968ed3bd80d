# shellcheck shell=bash
# The update itself: what is remembered of it on disk, the build, the names of images, the updater's run, the two that it
# cannot replace. Sourced after docker.sh, machine.sh and release.sh by scripts/update.
#
# A build goes to names of its own (NAME:update-COMMIT): until it is whole, what image names mean is left alone. Then the
# names that the containers have are moved to it, which is what the updater looks at. .cache/update holds, in this order
# of stages: build (nothing but the checkout has changed), run (the names have), last (the new version is in service).

STATE=.cache/update
RUN_SECONDS=2400 # the updater's own limits end a run long before: 15 minutes for health, and as much for going back
LAST_SECONDS=${LAST_SECONDS:-60} # for the updater or docker-filter to become healthy; a test cannot wait so long
declare -A state=()

# remember: `state` on disk, whole or not at all.
remember() {
    local key
    for key in "${!state[@]}"; do printf '%s=%s\n' "$key" "${state[$key]}"; done >$STATE.new
    sync $STATE.new
    mv $STATE.new $STATE
    sync .cache
}

# recall: `state` as an earlier run left it; false where none was cut short.
recall() {
    local key value
    [[ -s $STATE ]] || return 1
    while IFS='=' read -r key value; do state[$key]=$value; done <$STATE
}

forget() { rm -f $STATE; }

# current: name, service, image name and image id of each container of the stack that is in service.
current() {
    local ids
    ids=$(docker ps -aq --no-trunc --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" --filter label=com.docker.compose.oneoff=False)
    # shellcheck disable=SC2086
    [[ -z $ids ]] || docker inspect --format '{{slice .Name 1}} {{index .Config.Labels "com.docker.compose.service"}} {{.Config.Image}} {{.Image}}' $ids |
        grep -v -- '-before-[0-9a-z]* ' | sort
}

container_of() { current | awk -v service="$1" '$2 == service {print $1; exit}'; }

image_id() { docker image inspect --format '{{.Id}}' "$1" 2>/dev/null || true; }

# built_here: refuses a stack whose images come from a registry: there the updater alone does all of this.
built_here() {
    local image
    image=$(current | awk '$2 == "admin" {print $4; exit}')
    [[ -n $image ]] || die "there is no stack here to update: has scripts/up run?"
    case $(image_source "$image") in
    "" | unknown) die "this stack's images come from a registry: 'scripts/mailstead update run' updates it; nothing was changed" ;;
    esac
}

# remember_images: what each image name means now, by the containers' own words.
remember_images() {
    local name image
    while read -r _ _ name image; do
        [[ $name == "$(setting MAILSTEAD_REGISTRY ghcr.io/mailstead)"/*:* ]] || continue
        state[image:$name]=$image
    done < <(current | awk '$2 != "setup"')
}

names() {
    local key
    for key in "${!state[@]}"; do
        [[ $key != image:* ]] || printf '%s\n' "${key#image:}"
    done | sort
}

building() { printf 'update-%.12s' "${state[to]}"; }

# go_back REASON: the clone and the image names as they were; the containers are.
go_back() {
    local name
    for name in $(names); do
        docker tag "${state[image:$name]}" "$name" || warn "the image name $name could not be given back to ${state[image:$name]}"
    done
    forget_building
    repo reset --quiet --keep "${state[from]}" || die "$1; the clone could not be taken back to ${state[from]}: run this again"
    forget
    die "$1; the old version goes on running and the clone is back at $(described HEAD)"
}

# build_release: the checkout, and its images by its own scripts.
build_release() {
    local name
    repo reset --quiet --keep "${state[to]}" || go_back "the files of ${state[release]} could not be checked out"
    for name in $(names); do
        # What the release did not change is found under its new name and not built again.
        docker tag "${state[image:$name]}" "${name%:*}:$(building)"
    done
    MAILSTEAD_UPDATING=1 MAILSTEAD_VERSION=$(building) scripts/up --only-build || go_back "${state[release]} could not be built"
}

move_names() {
    local name
    for name in $(names); do
        docker tag "${name%:*}:$(building)" "$name" || go_back "the image name $name could not be moved"
    done
}

forget_building() {
    local name
    for name in $(names); do
        docker rmi "${name%:*}:$(building)" >/dev/null 2>&1 || true
    done
}

# updates ARGUMENTS...: `mailstead --json update ...` in the admin container, whichever that is by now.
updates() { docker exec -i "$(container_of admin)" mailstead --json update "$@"; }

# What is asked of the updater's answers; Python is in the admin container, this machine may have none.
ID='import json, sys
print(json.load(sys.stdin)["id"])'
UNDER_WAY='import json, sys
print((json.load(sys.stdin).get("run") or {}).get("id", ""))'
SINCE='import json, sys
found = [each["id"] for each in json.load(sys.stdin)["updates"] if each["started"] >= float(sys.argv[1])]
print(found[0] if found else "")'
STEPS='import json, sys
for each in (json.load(sys.stdin).get("run") or {}).get("steps", []):
    print(each["step"], each["outcome"], each.get("reason") or "")'
OUTCOME='import json, sys
for each in json.load(sys.stdin)["updates"]:
    if each["id"] == sys.argv[1]:
        print(each["outcome"], each.get("seconds_closed", 0), each.get("reason") or "")'

asked() { docker exec -i "$(container_of admin)" python3 -I -S -c "$@"; }

# replace_containers: the updater's run, from asking for it to its end.
replace_containers() {
    local answer outcome closed reason
    # After a power cut the updater ends its run by itself; it is asked what became of it.
    [[ -n ${state[id]:-} ]] || state[id]=$(updates history 2>/dev/null | asked "$SINCE" "${state[started]}" 2>/dev/null || true)
    [[ -n ${state[id]:-} ]] || state[id]=$(updates status 2>/dev/null | asked "$UNDER_WAY" 2>/dev/null || true)
    if [[ -z ${state[id]} ]]; then
        answer=$(updates run --local 2>&1) || go_back "the updater refused: $(tail -n 1 <<<"$answer")"
        state[id]=$(asked "$ID" <<<"$answer") || go_back "the updater answered something else: $(tail -n 1 <<<"$answer")"
        remember
    fi
    outcome='' closed='' reason=''
    read -r outcome closed reason < <(wait_for_end) || true
    case $outcome in
    committed) say "the new containers are in service; the listeners were closed for $closed s" ;;
    nothing) current | awk '$2 != "setup"' | up_to_date || go_back "the updater replaced nothing: $reason" ;;
    "") die "the updater's run ${state[id]} has not ended yet: run this again to see its end" ;;
    *)
        repo diff --quiet "${state[from]}" "${state[to]}" -- compose.yaml ||
            warn "${state[release]} changes compose.yaml; what new containers need of that is not there before they are in service"
        go_back "the new version was not taken ($outcome): $reason"
        ;;
    esac
}

# up_to_date: every container on standard input has the image that its name means, but the two that come last.
up_to_date() {
    local service name image
    while read -r _ service name image; do
        [[ $service == updater || $service == docker-filter || $(image_id "$name") == "$image" ]] || return 1
    done
}

# wait_for_end: shows the run's steps on standard error as they are done; prints its outcome, seconds closed and reason.
wait_for_end() {
    local deadline=$((SECONDS + RUN_SECONDS)) shown=0 steps ended
    while ((SECONDS < deadline)); do
        # admin is replaced in the middle of it: then nobody answers for a moment.
        steps=$(updates status 2>/dev/null | asked "$STEPS" 2>/dev/null || true)
        if [[ -n $steps ]] && (($(wc -l <<<"$steps") > shown)); then
            tail -n "+$((shown + 1))" <<<"$steps" | sed 's/^/  /' >&2
            shown=$(wc -l <<<"$steps")
        fi
        ended=$(updates history 2>/dev/null | asked "$OUTCOME" "${state[id]}" 2>/dev/null || true)
        if [[ -n $ended ]]; then
            printf '%s\n' "$ended"
            return
        fi
        sleep 1
    done
}

# first_setup: the new version's setup, by itself. Every container comes after it, so Compose would make all of them anew
# together with it; once it is the new one, they are left alone.
first_setup() {
    quietly docker compose --progress quiet up -d --no-deps --no-build setup || die "setup could not be started: see above, then run this again"
}

# replace_last SERVICE: one that the updater works with itself; its old image comes back when the new one is not healthy.
replace_last() {
    local container name old new
    read -r container _ name old < <(current | awk -v service="$1" '$2 == service')
    [[ -n $container ]] || return 0
    new=$(image_id "$name")
    [[ -n $new && $new != "$old" ]] || return 0
    say "replacing $1"
    if quietly docker compose --progress quiet up -d --no-deps --no-build "$1" && becomes_healthy "$1"; then return; fi
    docker tag "$old" "$name"
    quietly docker compose --progress quiet up -d --no-deps --no-build "$1" || warn "the old $1 could not be started either"
    docker tag "$new" "$name"
    die "the new $1 does not become healthy, so its old image runs again; mail is served by the new version. Run this again to try once more"
}

becomes_healthy() {
    local deadline=$((SECONDS + LAST_SECONDS))
    until timeout 15 docker exec "$(container_of "$1")" healthcheck >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.5
    done
}
