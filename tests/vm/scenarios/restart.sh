# Placed processes stay in their cgroups through restarts and reloads of the daemon and of systemd,
# and processes that came meanwhile are placed.
. /vm/scenario.bash

settings <<'END'
root = "auto"
END
rules <<'END'
[[rule]]
user = ["alice", "bob"]
cgroup = "people/%u"
[cgroup."people/%u"]
cpu.weight = 50
memory.high = "500M"
pids.max = 200
END
daemon || exit

# Ten processes of alice that stay; those of bob come and go.
held=()
for _ in {1..10}; do
    as alice sleep 1000
    held+=($pid)
done
(while :; do
    as bob sleep 5
    sleep 0.05
done) &
load=$!
trap 'kill $load; leave' EXIT

strays() { # strays USER: prints the processes that are not in the cgroup of USER
    ps -ww -u "$1" -o pid=,stat=,args=,cgroup= | grep -v -e " Z" -e "people/$1\$"
}
none_outside() { [ -z "$(strays alice)$(strays bob)" ] || { strays alice && strays bob && false; }; }
inode() { stat -c %i "$ground/people/alice"; }
stayed() { # stayed: the ten processes are in the same cgroup as before, with its limits
    [ "$(inode)" = "$group" ] && [ "$(cat "$ground/people/alice/pids.max")" = 200 ] &&
        [ "$(grep -cxF "$(printf '%s\n' "${held[@]}")" "$ground/people/alice/cgroup.procs")" = 10 ]
}
expect "all are placed under load" within 10 none_outside
group=$(inode)

# after WHAT COMMAND...: placed processes stay, and all others are placed.
not() { ! "$@"; }
after() {
    local what=$1
    shift
    expect "$what" "$@"
    expect "$what: placed processes stay" stayed
    expect "$what: all are placed" within 20 none_outside
}
is_restarted() { [ "$(systemctl show -P NRestarts cgruled.service)" -ge 1 ] && is_ready; }
killed() { systemctl kill -s KILL cgruled.service && sleep 1 && within 30 is_restarted; }
stopped() { systemctl stop cgruled.service && sleep 3 && [ -n "$(strays bob)" ] && stayed && daemon; }
refused() { ! systemctl stop cgruled-pool.service; }
after "restart" daemon
after "stop, a pause, start" stopped
after "kill -9" killed
after "daemon-reload" systemctl daemon-reload
after "daemon-reexec" systemctl daemon-reexec
after "stop of the pool is refused" refused
after "systemctl reload" systemctl reload cgruled.service
printf 'version = 1\n[[rule]]\nuser =\n' >/etc/cgruled/rules.d/99-broken.toml
after "systemctl reload with an invalid file fails" not systemctl reload cgruled.service
expect "its reason is in the journal" said "99-broken.toml:3"
rm /etc/cgruled/rules.d/99-broken.toml
after "systemctl reload succeeds again" systemctl reload cgruled.service
after "a weight for the pool" systemctl set-property --runtime cgruled.slice CPUWeight=200
expect "the weight is that of the slice" grep -qx 200 "$ground/../cpu.weight"
systemctl -q revert cgruled.slice
systemctl stop cgruled.service
systemctl daemon-reload
expect "daemon-reload without the daemon: placed processes stay" stayed
expect "controllers are still enabled" grep -q "cpu io memory pids" "$ground/cgroup.controllers"

# The daemon is not restarted with an invalid configuration.
settings <<'END'
root = 7
END
systemctl start cgruled.service 2>/dev/null
sleep 3
expect "with invalid settings the daemon exits with 65, once" \
    test "$(systemctl show -p NRestarts,ExecMainStatus --value cgruled.service | xargs)" = "0 65"
expect "invalid settings: placed processes stay" stayed
