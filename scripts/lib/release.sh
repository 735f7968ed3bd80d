# shellcheck shell=bash
# Which release is newer, and whose it is. Sourced after docker.sh and machine.sh by scripts/update, whose variables
# `wanted`, `branch`, `unverified` and `target` these are. What the origin offers is kept in references of its own
# (refs/update/), so that neither the clone's tags nor its branches are touched before a signature was checked.
# shellcheck disable=SC2154

# repo ARGUMENTS...: git in this clone, as the clone's owner, who may not be the one that Docker needs.
repo() {
    local owner
    owner=$(stat -c %U .)
    local command=(env GIT_TERMINAL_PROMPT=0 git -c core.hooksPath=/dev/null -c advice.detachedHead=false -C "$PWD" "$@")
    if ((EUID == 0)) && [[ $owner != root && $owner != UNKNOWN ]]; then
        runuser -u "$owner" -- env HOME="$(getent passwd "$owner" | cut -d : -f 6)" "${command[@]}"
    else
        GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$PWD "${command[@]}"
    fi
}

# described COMMIT: its release, by what the origin offered last; else how git describes it.
described() {
    local tag
    tag=$(repo for-each-ref --points-at "$1" --format='%(refname:lstrip=3)' refs/update/tags | sort -V | tail -n 1)
    printf '%s' "${tag:-$(repo describe --tags --always "$1")}"
}

# find_release: `release` is the wanted or the newest release (or branch), `target` its commit, empty where it is not newer.
find_release() {
    local references=('+refs/tags/*:refs/update/tags/*')
    [[ -z $branch ]] || references+=("+refs/heads/$branch:refs/update/branch")
    repo fetch --quiet --no-tags --prune origin "${references[@]}" ||
        die "the origin of this clone cannot be read (git fetch origin); nothing was changed"
    local reference
    if [[ -n $branch ]]; then
        release=$branch reference=refs/update/branch
    else
        # Numbers alone: a candidate such as v1.2-rc1 is taken only by name.
        release=${wanted:-$(repo for-each-ref --format='%(refname:lstrip=3)' refs/update/tags |
            grep -E '^v?[0-9]+(\.[0-9]+)*$' | sort -V | tail -n 1 || true)}
        reference=refs/update/tags/$release
    fi
    target=
    [[ -n $release ]] || return 0
    object=$(repo rev-parse --quiet --verify "$reference") || die "the origin has no tag $release; nothing was changed"
    target=$(repo rev-parse --quiet --verify "$object^{commit}") || die "$release is not a commit; nothing was changed"
    local here
    here=$(repo rev-parse HEAD)
    if [[ $target == "$here" ]]; then
        target=
    elif repo merge-base --is-ancestor "$target" "$here"; then
        [[ -z $wanted ]] ||
            die "$release is older than this clone ($(described HEAD)): the way back is 'scripts/mailstead update rollback'; nothing was changed"
        target=
    elif ! repo merge-base --is-ancestor "$here" "$target"; then
        die "this clone ($(described HEAD)) has commits that $release has not: nothing was changed"
    fi
}

# distrusted REASON: the end, unless the owner asked for it.
distrusted() {
    [[ -n $unverified ]] || die "$1; nothing was changed (--unverified takes it all the same)"
    warn "$1"
    signer=
}

# verify_release: `signer` is who signed the tag, by the file of the checkout that runs now, not of the one to come.
verify_release() {
    local file told
    signer=
    if [[ -n $branch ]]; then
        warn "$branch is a branch, signed by nobody"
        return
    fi
    file=$(setting RELEASE_SIGNERS scripts/release-signers env/updater.env)
    [[ -r $file ]] || die "RELEASE_SIGNERS='$file' (env/updater.env) cannot be read"
    if ! grep -qE '^[[:space:]]*[^#[:space:]]' "$file"; then
        distrusted "no key of this project's releases is known here: $file is where it goes (RELEASE_SIGNERS in env/updater.env)"
        return
    fi
    if [[ $(repo cat-file -t "$object") != tag ]]; then
        distrusted "$release is not signed"
        return
    fi
    # A signed tag that is offered under another name would pass as a newer release.
    if [[ $(repo cat-file tag "$object" | sed -n '/^$/q; s/^tag //p') != "$release" ]]; then
        distrusted "the tag $release of the origin is another one's signature, under a name that it was not made for"
        return
    fi
    # The machine's GnuPG would take any key that somebody once put into its ring: only the file counts.
    if ! repo cat-file tag "$object" | grep -q '^-----BEGIN SSH SIGNATURE-----$'; then
        distrusted "$release is not signed with an SSH key"
        return
    fi
    command -v ssh-keygen >/dev/null || die "ssh-keygen is missing: 'apt-get install openssh-client', then run this again"
    file=$(readlink -f "$file")
    if ! told=$(repo -c "gpg.ssh.allowedSignersFile=$file" -c gpg.ssh.program=ssh-keygen verify-tag "$object" 2>&1); then
        distrusted "the signature of $release is not one of a key in $file ($(tail -n 1 <<<"$told"))"
        return
    fi
    signer=$(sed -n 's/^Good "git" signature for \(.*\) with .*/\1/p' <<<"$told")
    [[ -n $signer ]] || die "git says nothing of who signed $release: $told"
}
