# Functions for scenarios. Sourced: . /vm/scenario.bash

ground=/sys/fs/cgroup/cgruled.slice/cgruled-pool.service
ok() { echo "ok $1"; }
not_ok() { echo "not ok $1: $2"; }
say() { echo "#   $*"; }

# expect NAME COMMAND...: prints ok if COMMAND succeeds, else not ok with its output as the reason.
expect() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then ok "$name"; else not_ok "$name" "$* (${output:-code $?})"; fi
}

# within SECONDS COMMAND...: repeats COMMAND until it succeeds; at the deadline fails with its last output.
within() {
    local end=$((SECONDS + $1)) output
    shift
    until output=$("$@" 2>&1); do
        [ $SECONDS -lt $end ] || { echo "$output" && return 1; }
        sleep 0.1
    done
}

# rules <<END: replaces the rules. settings <<END: replaces the settings.
rules() { { echo "version = 1" && cat; } >/etc/cgruled/rules.d/50-test.toml; }
settings() { cat >/etc/cgruled/cgruled.toml; }

# verifies UNIT: succeeds if systemd reports no diagnostic for it and its drop-ins. `verify` also
# loads other units and reports on them, so only lines with our name count.
verifies() {
    local said
    command -v systemd-analyze >/dev/null || { echo "systemd-analyze is not installed" && return 1; }
    said=$(systemd-analyze --man=no verify "$1" 2>&1 | grep cgruled)
    [ -z "$said" ] || { echo "$said" && return 1; }
}

# Restarts the daemon with the present rules and settings and waits until it is ready.
daemon() {
    systemctl restart cgruled.service && known=$(started_as) && within 20 is_ready || {
        journalctl -b -n 20 --no-pager -u cgruled.service
        return 1
    }
}
is_ready() { said "ready: all processes evaluated"; }

# Prints the log of the daemon since its last start; with -p warning only warnings and errors.
log() {
    local invocation
    invocation=$(started_as)
    journalctl -q -o cat "$@" "_SYSTEMD_INVOCATION_ID=${invocation:-$known}"
}
# systemd forgets a unit that is stopped and not enabled.
started_as() { systemctl show -P InvocationID cgruled.service; }
known=
said() { log | grep -qF -- "$1"; }

# A cgroup that belongs to no unit, in each hierarchy where systemd keeps units: rules move
# processes from there without `leave_units`.
outside=(/sys/fs/cgroup/outside)
is_hybrid() { [ -d /sys/fs/cgroup/unified ]; }
! is_hybrid || outside=(/sys/fs/cgroup/{unified,systemd}/outside)
mkdir -p "${outside[@]}"
# become USER COMMAND...: executes COMMAND as USER; for subshells.
become() {
    local user=$1 group
    shift
    for group in "${outside[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
    HOME=/home/$user exec setpriv --reuid="$user" --regid="$user" --init-groups "$@"
}
# as USER COMMAND...: runs COMMAND in the background and sets $pid to its PID.
as() {
    (become "$@") </dev/null >/dev/null 2>&1 &
    pid=$!
    started+=($pid)
    disown # otherwise bash reports each as killed
}
started=()
# Kills all processes that `as` started, and their children.
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

# Prints the v2 cgroup of a process.
group_of() { sed -n 's/^0:://p' "/proc/$1/cgroup"; }
# in_group PID PATH: waits up to 20 s until the process is in PATH below the pool.
in_group() { within 20 is_in "$1" "${ground#/sys/fs/cgroup}/$2" || { group_of "$1" && false; }; }
is_in() { [ "$(group_of "$1")" = "$2" ]; }
# cpu_stat GROUP KEY: prints a value of cpu.stat, in microseconds.
cpu_stat() { sed -n "s/^$2 //p" "$ground/$1/cpu.stat"; }

# mine USER COMMAND...: runs COMMAND with the environment of a login.
mine() {
    local user=$1 id
    shift
    id=$(id -u "$user")
    setpriv --reuid="$user" --regid="$user" --init-groups env XDG_RUNTIME_DIR="/run/user/$id" "$@"
}
# counter NAME: prints a counter of the running daemon.
counter() { cgrulectl status --json | tr -d ' \n' | sed "s/.*\"$1\":\([0-9]*\).*/\1/"; }

busy='while :; do :; done'
