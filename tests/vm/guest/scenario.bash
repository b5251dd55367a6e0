# What scenarios are written with. Sourced: . /vm/scenario.bash

ground=/sys/fs/cgroup/cgruled.slice/cgruled-pool.service
ok() { echo "ok $1"; }
not_ok() { echo "not ok $1: $2"; }
say() { echo "#   $*"; }

# expect NAME COMMAND...: ok if COMMAND succeeds, else its output is the reason.
expect() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then ok "$name"; else not_ok "$name" "$* (${output:-code $?})"; fi
}

# within SECONDS COMMAND...: whether COMMAND succeeds before then, else what it said last.
within() {
    local end=$((SECONDS + $1)) output
    shift
    until output=$("$@" 2>&1); do
        [ $SECONDS -lt $end ] || { echo "$output" && return 1; }
        sleep 0.1
    done
}

# rules <<END: these and no others. settings <<END: these.
rules() { { echo "version = 1" && cat; } >/etc/cgruled/rules.d/50-test.toml; }
settings() { cat >/etc/cgruled/cgruled.toml; }

# verifies UNIT: whether systemd has no complaint about it and its drop-ins. `verify` reads on and complains of
# others, so only what names us counts.
verifies() {
    local said
    command -v systemd-analyze >/dev/null || { echo "there is no systemd-analyze" && return 1; }
    said=$(systemd-analyze --man=no verify "$1" 2>&1 | grep cgruled)
    [ -z "$said" ] || { echo "$said" && return 1; }
}

# (Re)starts the daemon with the rules and settings that are there.
daemon() {
    systemctl restart cgruled.service && known=$(started_as) && within 20 is_ready || {
        journalctl -b -n 20 --no-pager -u cgruled.service
        return 1
    }
}
is_ready() { said "ready: all processes evaluated"; }

# The daemon's log since it was started last; with -p warning only from there on.
log() {
    local invocation
    invocation=$(started_as)
    journalctl -q -o cat "$@" "_SYSTEMD_INVOCATION_ID=${invocation:-$known}"
}
# systemd forgets a unit that is stopped and not enabled.
started_as() { systemctl show -P InvocationID cgruled.service; }
known=
said() { log | grep -qF -- "$1"; }

# In a group that belongs to no unit, in each tree that systemd keeps units in: from there the daemon takes
# whom it likes.
outside=(/sys/fs/cgroup/outside)
is_hybrid() { [ -d /sys/fs/cgroup/unified ]; }
! is_hybrid || outside=(/sys/fs/cgroup/{unified,systemd}/outside)
mkdir -p "${outside[@]}"
# become USER COMMAND...: ends in it; for subshells.
become() {
    local user=$1 group
    shift
    for group in "${outside[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
    HOME=/home/$user exec setpriv --reuid="$user" --regid="$user" --init-groups "$@"
}
# as USER COMMAND...: in the background; its number is in $pid.
as() {
    (become "$@") </dev/null >/dev/null 2>&1 &
    pid=$!
    started+=($pid)
    disown # or bash says of each that it was killed
}
started=()
# Ends all that `as` started, and their children.
leave() {
    local group
    [ ${#started[@]} = 0 ] || kill -KILL "${started[@]}" 2>/dev/null
    for group in "$ground"/*/; do
        [ ! -e "$group/cgroup.kill" ] || echo 1 >"$group/cgroup.kill"
    done
    started=()
    sleep 0.5
}
trap leave EXIT

# The v2 group of a process.
group_of() { sed -n 's/^0:://p' "/proc/$1/cgroup"; }
# in_group PID PATH: whether it is in PATH below the ground, now or soon.
in_group() { within 20 is_in "$1" "${ground#/sys/fs/cgroup}/$2" || { group_of "$1" && false; }; }
is_in() { [ "$(group_of "$1")" = "$2" ]; }
# stat GROUP KEY: a value of its cpu.stat, in microseconds.
cpu_stat() { sed -n "s/^$2 //p" "$ground/$1/cpu.stat"; }

# mine USER COMMAND...: with the environment of a login.
mine() {
    local user=$1 id
    shift
    id=$(id -u "$user")
    setpriv --reuid="$user" --regid="$user" --init-groups env XDG_RUNTIME_DIR="/run/user/$id" "$@"
}
# counter NAME: of the daemon that runs.
counter() { cgrulectl status --json | tr -d ' \n' | sed "s/.*\"$1\":\([0-9]*\).*/\1/"; }

busy='while :; do :; done'
