# Limits for users without moving their processes: their slices, [unit."user-%U.slice"].
. /vm/scenario.bash

settings <<'END'
root = "auto"
END
alice=$(id -u alice) bob=$(id -u bob)
control=/run/systemd/system.control
slice() { echo "/sys/fs/cgroup/user.slice/user-$1.slice"; }
limit() { cat "$(slice "$1")/pids.max"; }
is_limited() { [ "$(limit "$1")" = "$2" ] || { limit "$1" && false; }; }
people() { # people PIDS_MAX [USER]...: a table for alice and the further users
    local pids=$1 users='"alice"' name
    shift
    for name; do users+=", \"$name\""; done
    rules <<END
[unit."user-%U.slice"]
users = [$users]
pids.max = $pids
memory.max = "20%"
END
}
# log_in USER: starts a session with a process that stays.
log_in() {
    su -l "$1" -c 'sleep 1000' </dev/null >/dev/null 2>&1 &
    disown
    within 30 pgrep -u "$1" -x sleep
}
log_out() {
    loginctl terminate-user "$1"
    within 30 test ! -e "$(slice "$(id -u "$1")")"
}
group_of_unit() { mine alice systemctl --user show -P ControlGroup "$1"; }

# A slice that systemd creates while the daemon runs.
people 150
daemon || exit
log_in alice
expect "the slice of alice has the limit" within 20 is_limited "$alice" 150
expect "systemd wrote the file of the limit" test -e "$control/user-$alice.slice.d/50-TasksMax.conf"
session=$(pgrep -u alice -x sleep)
expect "her session is in the slice" grep -q "^/user.slice/user-$alice.slice/session-" <(group_of "$session")
log_in bob
sleep 3
expect "bob, who is not in users, has another limit" test "$(limit "$bob")" != 150
expect "and no files of ours" test ! -e "$control/user-$bob.slice.d"

# Processes of her service manager are inside.
within 30 systemctl is-active "user@$alice.service"
expect "she starts a service" mine alice systemd-run -q --user --unit=work sleep 1000
expect "it is inside" grep -q "^/user.slice/user-$alice.slice/user@" <(group_of_unit work)
expect "it is not moved" is_in "$(mine alice systemctl --user show -P MainPID work)" "$(group_of_unit work)"
expect "and a scope" mine alice systemd-run -q --user --scope true
# A fork bomb in a user service is stopped by the limit of the slice.
mine alice systemd-run -q --user --unit=bomb -p TasksMax=infinity sh -c 'for i in $(seq 300); do sleep 1000 & done; wait'
reached() { [ "$(cat "$(slice "$alice")/pids.current")" -ge 145 ]; }
expect "300 processes of a user service reach the limit" within 30 reached
expect "and are within it" test "$(cat "$(slice "$alice")/pids.current")" -le 150
mine alice systemctl --user kill -s KILL bomb

# Both forms: processes in the slice stay, processes outside of it and of a service that runs jobs are moved.
rules <<END
[unit."user-%U.slice"]
users = ["alice"]
pids.max = 150

[[rule]]
name = "people"
user = ["alice", "bob"]
cgroup = "people/%u"
leave_units = true
END
expect "check reports no warning" cgrulectl check --strict
systemctl reload cgruled.service
systemd-run -q --unit=cgi --uid=alice sleep 1000
expect "a service of the host that runs as alice is moved" \
    in_group "$(systemctl show -P MainPID cgi.service)" people/alice
mine alice systemd-run -q --user --unit=later sleep 1000
later=$(mine alice systemctl --user show -P MainPID later)
sleep 2
expect "her user service stays in the slice" is_in "$later" "$(group_of_unit later)"
expect "explain reports it" grep -q "stays in the slice of its user" <(cgrulectl explain "$later")
expect "her session stays there" grep -q "^/user.slice/user-$alice.slice/session-" <(group_of "$session")
expect "it is counted" grep -Eq '"kept_in_slice": *[1-9]' <(cgrulectl status --json)
expect "bob, without a table, is moved" in_group "$(pgrep -u bob -x sleep)" people/bob
(echo $BASHPID >"/sys/fs/cgroup$(group_of_unit work)/cgroup.procs" || exit
    exec setpriv --reuid=bob --regid=bob --init-groups sleep 1000) &
stranger=$!
disown
expect "a process of bob below the service manager of alice is moved too" in_group $stranger people/bob
systemctl stop cgi.service
pkill -u bob -x sleep
within 30 test ! -e "$(slice "$bob")"
log_in bob
people 150
systemctl reload cgruled.service

# A restart of the daemon; other values; an additional user.
daemon || exit
expect "after a restart the limit is the same" is_limited "$alice" 150
people 160 bob
expect "a reload changes it" within 20 is_limited "$alice" 160
expect "and limits the session of bob, which exists" within 20 is_limited "$bob" 160
expect "cgrulectl counts no refusal" grep -q '"units_refused": *0' <(cgrulectl status --json)

# A session that exists when the daemon starts.
systemctl stop cgruled.service
log_out bob
log_in bob
expect "while the daemon is stopped the next session has the limit" within 20 is_limited "$bob" 160
people 170 bob
daemon || exit
expect "a session at the start gets it" within 20 is_limited "$bob" 170

# Our settings are reset, and those of others kept.
systemctl set-property --runtime "user-$alice.slice" CPUWeight=77
systemctl set-property --runtime "user-$bob.slice" MemoryMax=300M
people 170
expect "bob is no longer selected" within 20 test ! -e "$control/user-$bob.slice.d/50-TasksMax.conf"
unlimited() { [ "$(limit "$1")" != 170 ]; }
expect "and has no limit of ours" within 20 unlimited "$bob"
expect "a foreign setting for bob stays" test -e "$control/user-$bob.slice.d/50-MemoryMax.conf"
expect "and is active" test "$(cat "$(slice "$bob")/memory.max")" = 314572800
systemctl stop cgruled.service
rules </dev/null
daemon || exit
expect "without the file, also after a restart, alice has no limit" within 20 unlimited "$alice"
expect "our files are gone" test ! -e "$control/user-$alice.slice.d/50-TasksMax.conf"
expect "the foreign file stays" test -e "$control/user-$alice.slice.d/50-CPUWeight.conf"
expect "and is active" test "$(cat "$(slice "$alice")/cpu.weight")" = 77
expect "the session is alive" kill -0 "$session"
expect "nothing was refused" test -z "$(log -p warning | grep -F 'slice')"
systemctl -q revert "user-$alice.slice" "user-$bob.slice"
log_out alice
log_out bob
systemctl stop cgruled.service
