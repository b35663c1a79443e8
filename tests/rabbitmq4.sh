# Sourced by tests/run after tests/setup.sh: RabbitMQ 4 of Debian in a folder of its own
# outside the tree, beside the installed one. Made once, used by every later run.
# shellcheck shell=sh

suite=trixie # the release of Debian whose rabbitmq-server is 4.0
kept=${XDG_CACHE_HOME:-${HOME:?}/.cache}/rmqarq/rabbitmq-4
scripts=$kept/scripts
programs="rabbitmq-server rabbitmqctl rabbitmq-diagnostics rabbitmq-plugins rabbitmq-queues epmd"

# the first mirror of Debian that apt uses here; nothing means debootstrap's own choice
mirror() {
    apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        sed -n 's,^Debian Debian \(https\{0,1\}://.*\),\1,p' | head -n 1
}

in_root() {
    chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ LANG=C.UTF-8 \
        ${http_proxy:+"http_proxy=$http_proxy"} DEBIAN_FRONTEND=noninteractive \
        sh -ec "$2"
}

make_root() {
    say "make a Debian $suite in $1, once (about 250 MB)"
    set -- "$1" "$(mirror)"
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$1" ${2:+"$2"} || return
    printf '#!/bin/sh\nexit 101\n' > "$1/usr/sbin/policy-rc.d" # starts no service
    chmod +x "$1/usr/sbin/policy-rc.d"
    echo '127.0.0.1 localhost' > "$1/etc/hosts"
    say "install rabbitmq-server in it"
    in_root "$1" 'apt-get update -q
        apt-get install -q -y --no-install-recommends rabbitmq-server
        apt-get clean
        rm -rf /var/lib/apt/lists/*'
}

# Under the name of each program stands a script that becomes it: the same process, with
# the folder as its root, where the machine's processes, devices and temporary files are
# found at their usual places. Its mounts are its own and end with it.
write_scripts() {
    mkdir -p "$scripts"
    cat > "$scripts/enter" <<'END'
#!/bin/sh
set -eu
root=$(cd -- "$(dirname -- "$0")/.." && pwd -P)/debian
program=$(basename -- "$0")
work=$(pwd -P)
files=$(cd -- "${TMPDIR:-/tmp}" && pwd -P)
export root program work files
exec unshare --mount -- sh -euc '
    mkdir -p "$root$files"
    for place in /proc /dev "$files"; do mount --rbind "$place" "$root$place"; done
    for place in /usr/lib/rabbitmq/bin /usr/lib/erlang/bin /usr/sbin /usr/bin; do
        [ ! -x "$root$place/$program" ] || break
    done
    case $work/ in "$files"/*) ;; *) work=/ ;; esac
    exec chroot "$root" env -u root -u program -u work -u files -C "$work" \
        "$place/$program" "$@"
' "$program" "$@"
END
    chmod +x "$scripts/enter"
    for program_there in $programs; do ln -sf enter "$scripts/$program_there"; done
}

# sets RMQARQ_TEST_RABBITMQ, by which the harness finds it
need_rabbitmq_4() {
    [ "$(id -u)" -eq 0 ] || fail "RabbitMQ 4 runs in a folder that only root may enter (chroot); run this as root"
    command -v apt-get >/dev/null ||
        fail "RabbitMQ 4 is taken from Debian's packages, and this machine has no apt-get; name another RabbitMQ: RMQARQ_TEST_RABBITMQ=/its/directory/of/scripts $program"
    command -v unshare >/dev/null && unshare --mount true 2>/dev/null ||
        fail "RabbitMQ 4 needs mounts of its own: unshare --mount must be allowed (a container needs CAP_SYS_ADMIN)"
    if [ ! -d "$kept/debian" ]; then
        command -v debootstrap >/dev/null || apt_install debootstrap ||
            fail "debootstrap is needed, and could not be installed"
        rm -rf "$kept/part.$$"
        mkdir -p "$kept"
        make_root "$kept/part.$$" || fail "RabbitMQ 4 could not be installed in $kept; what went wrong stands above"
        # another run may have been quicker
        [ -d "$kept/debian" ] || mv "$kept/part.$$" "$kept/debian"
        rm -rf "$kept/part.$$"
    fi
    write_scripts
    RMQARQ_TEST_RABBITMQ=$scripts
    export RMQARQ_TEST_RABBITMQ
}
