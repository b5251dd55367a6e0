# Attempts of a user to pass for a part of systemd, and processes that are a part of it.
. /vm/scenario.bash

settings <<'CGRULED'
root = "auto"
CGRULED
rules <<'CGRULED'
[[rule]]
user = ["alice", "bob"]
cgroup = "people/%u"
CGRULED
daemon || exit

id=$(id -u alice)
programs=/vm/programs
cp $programs/escape{,.so} $programs/forge /home/alice/
loginctl enable-linger alice
within 30 systemctl is-active "user@$id.service"
scope_of() { echo "/user.slice/user-$1.slice/user@$1.service/init.scope"; }
# Since systemd 254 a login and the service manager have a capability, without which the
# manager cannot be traced.
trace() { setpriv --reuid=alice --regid=alice --init-groups --inh-caps=+wake_alarm --ambient-caps=+wake_alarm "$@"; }
main_pid() { systemctl show -P MainPID "user@$(id -u "$1").service"; }
pam_of() { pgrep -o -P "$(main_pid "$1")" -x '\(sd-pam\)'; }

# tagged NAME: prints the processes of an attempt.
tagged() { grep -lsz "^ESCAPE=$1\$" /proc/[0-9]*/environ | cut -d / -f 3; }
# outside PID...: prints those that are not below people/alice. The cgroup file of a leader that has exited
# is out of date, so all threads count. One grep for all: one for each of 100 processes takes 10 s here.
outside() {
    [ $# -gt 0 ] || return 0
    local files=("${@/#//proc/}")
    files=("${files[@]/%//task/*/cgroup}") # unquoted below: the shell expands them
    comm -13 <(grep -ls ":${ground#/sys/fs/cgroup}/people/alice\$" ${files[@]} | cut -d / -f 3 | sort -u) \
        <(printf '%s\n' "$@" | sort -u)
}
# none_outside MINIMUM COMMAND...: succeeds if COMMAND lists at least MINIMUM processes
# and all are in their cgroup.
none_outside() {
    local minimum=$1 pids out
    shift
    pids=$("$@")
    out=$(outside $pids | wc -l)
    echo "$out of $(wc -w <<<"$pids") outside"
    [ "$out" = 0 ] && [ "$(wc -w <<<"$pids")" -ge "$minimum" ]
}
# Repeats none_outside for up to 10 s and prints the result.
none_outside_soon() {
    local code
    within 10 none_outside "$@"
    code=$?
    say "${*:2}: $(none_outside "${@:1:2}" "${@:3}")" >&4
    return $code
}
exec 4>&1
# attempt NAME [MINIMUM]: checks that all processes of an attempt are in their cgroup.
attempt() {
    within 20 has "$1" "${2:-101}"
    sleep 2
    expect "$1" none_outside_soon "${2:-101}" tagged "$1"
    tagged "$1" | xargs -r kill -KILL
    mine alice systemctl --user reset-failed
}
has() { [ "$(tagged "$1" | wc -l)" -ge "$2" ]; }

# keeps USER WHEN: the service manager and its (sd-pam) are in their cgroup of systemd,
# and the manager works.
keeps() {
    local user=$1 scope
    scope=$(scope_of "$(id -u "$user")")
    # Longer than a process may wait for systemd, plus the five seconds of `engine/user_managers/starting.rs`.
    sleep 8
    expect "the manager of $user is not moved: $2" is_in "$(main_pid "$user")" "$scope"
    expect "nor its (sd-pam): $2" is_in "$(pam_of "$user")" "$scope"
    expect "a unit starts: $2" mine "$user" systemd-run -q --user -p Type=oneshot true
    # systemd-run requests its own unit and fails if it was moved back before.
    expect "a scope starts: $2" within 10 mine "$user" systemd-run -q --user --scope true
    expect "many units start: $2" many "$user"
    expect "no unit failed: $2" none_failed "$user"
}
# The failed units are the reason that `expect` prints.
none_failed() {
    mine "$1" systemctl --user is-system-running || { mine "$1" systemctl --user --failed --plain --no-legend && false; }
}
many() {
    local n
    for n in {1..10}; do
        mine "$1" systemd-run -q --user --unit="many-$n" sleep 1000 || return
    done
    sleep 1
    mine "$1" systemctl --user is-active many-{1..10} || return
    mine "$1" systemctl --user stop 'many-*'
}

keeps alice "after its start"

run() { mine alice systemd-run -q --user -E ESCAPE="$1" "${@:2}"; }
helper=/usr/lib/systemd/systemd-ac-power
[ -x $helper ] || helper=/usr/lib/systemd/systemd-sysctl
preload="LD_PRELOAD=/home/alice/escape.so"
join="ESCAPE_CGROUP=/sys/fs/cgroup$(scope_of "$id")"

run preload -E "$preload" $helper
attempt preload

run bind -p PrivateUsers=yes -p BindReadOnlyPaths=/home/alice/escape:$helper $helper
attempt bind

# With the daemon stopped, as otherwise the shell is in its cgroup already.
systemctl stop cgruled.service
as alice env ESCAPE=unshare unshare --user --map-root-user --mount \
    sh -c "mount --bind /home/alice/escape $helper; exec $helper"
within 20 has unshare 101
daemon
attempt unshare

run manager -E "$preload" -E "$join" -E "ESCAPE_COMM=(sd-pam)" /usr/lib/systemd/systemd
attempt manager

run orphans -E "$preload" -E "$join" -E "ESCAPE_COMM=(sd-pam)" -E ESCAPE_ORPHANS=1 /usr/lib/systemd/systemd
attempt orphans

# Only the cgroup, by any program.
run cgroup -E "$join" /home/alice/escape
attempt cgroup

# The service manager of the user is traced and forks without an exec.
if [ "$(uname -m)" = x86_64 ]; then
    forged=$(trace /home/alice/forge "$(main_pid alice)" 100)
    forged_pids() { echo "$forged"; }
    sleep 4
    expect "forks of the manager" none_outside_soon 100 forged_pids
    kill -KILL $forged
    forged=$(trace /home/alice/forge "$(main_pid alice)" 100)
    expect "a scan finds them" systemctl reload cgruled.service
    sleep 4
    expect "forks of the manager, after a reload" none_outside_soon 100 forged_pids
    kill -KILL $forged
fi

keeps alice "after all attempts"
su -l bob -c 'sleep 1000' &
within 30 systemctl is-active "user@$(id -u bob).service"
keeps bob "a login while the daemon runs"
pkill -u bob -x sleep

systemctl restart "user@$id.service"
keeps alice "after a restart of its unit"
systemctl stop cgruled.service
as alice $programs/leader
leader=$pid
sleep 1
expect "the leader has exited" grep -q '^State:.*Z' "/proc/$leader/status"
expect "the daemon starts again" daemon
keeps alice "after a restart of the daemon"
is_placed() { [ -z "$(outside "$leader")" ]; }
expect "a process without its leader is placed at the start" within 10 is_placed
as alice $programs/leader
leader=$pid
expect "and at its start" within 10 is_placed

# Daemons of systemd that run as system users stay, whatever a rule allows.
expect "a daemon of a system user runs" systemctl start systemd-networkd.service
rules <<'CGRULED'
[[rule]]
user = "*"
not = { user = ["root", "messagebus"] }
cgroup = "all"
leave_units = true
CGRULED
systemctl reload cgruled.service
sleep 3
for unit in systemd-networkd; do
    daemon_pid=$(systemctl show -P MainPID $unit.service)
    say "$unit as $(stat -c %U "/proc/$daemon_pid"): $(group_of "$daemon_pid")"
done
networkd=$(systemctl show -P MainPID systemd-networkd.service)
expect "a daemon of systemd is not moved" is_in "$networkd" /system.slice/systemd-networkd.service
log -p warning
loginctl disable-linger alice
systemctl stop "user@$id.service"
