# Hosts where systemd uses the v1 hierarchies, and v2 without controllers.
. /vm/scenario.bash

if ! is_hybrid; then
    say "skipped: the machine is not hybrid (CGRULED_VM_BOOT=systemd.unified_cgroup_hierarchy=0)"
    exit 0
fi
ground=/sys/fs/cgroup/unified/people # emptied by `leave` at the end
settings <<'END'
root = "auto"
END
rules <<'END'
[[rule]]
user = ["alice", "bob"]
cgroup = "people/%u"
[cgroup."people/%u"]
cpu.weight = 50
memory.max = "200M"
pids.max = 100
END
expect "the daemon starts" daemon
complaints() { log -p warning -o json | grep -c MESSAGE; }
expect "a warning reports cgroups beside those of systemd" test "$(complaints)" = 1
expect "and the setting that accepts it" said 'root = "/"'
settings <<'END'
root = "/"
END
daemon
expect "an explicit setting causes no warning" test "$(complaints)" = 0

as alice sleep 1000
standing=$pid
places() { # places PID: prints its cgroups in the hierarchies of the settings and in v2
    sed -nE 's/^[0-9]+:(cpu,cpuacct|memory|pids|):/\1 /p' "/proc/$1/cgroup" | sort | xargs
}
placed=" /people/alice cpu,cpuacct /people/alice memory /people/alice pids /people/alice"
is_placed() { [ "$(places "$1")" = "${placed# }" ] || { places "$1" && false; }; }
expect "a process is placed in all hierarchies" within 20 is_placed $standing
has() { # has TREE/FILE VALUE
    expect "${1##*/}" grep -qx "$2" "/sys/fs/cgroup/${1%/*}/people/alice/${1##*/}"
}
has cpu/cpu.shares 512
has memory/memory.limit_in_bytes 209715200
has pids/pids.max 100

systemd-run -q --unit=shop --uid=alice sleep 1000
shop=$(systemctl show -P MainPID shop.service)
expect "a process that stays in a service is logged" within 10 said "shop.service"
expect "explain reports it" grep -q "is left in its systemd unit" <(cgrulectl explain "$shop")
expect "it stays in all hierarchies" test -z "$(places "$shop" | grep people)"
systemctl stop shop.service

loginctl enable-linger alice
id=$(id -u alice)
within 30 systemctl is-active "user@$id.service"
expect "the service manager of the user starts units" mine alice systemd-run -q --user --unit=work sleep 1000
work=$(mine alice systemctl --user show -P MainPID work)
expect "what it starts is placed" within 20 is_placed "$work"
expect "its unit is still active" mine alice systemctl --user is-active work
expect "it is not degraded" mine alice systemctl --user is-system-running
loginctl disable-linger alice
systemctl stop "user@$id.service"

# after WHAT COMMAND...: placed processes stay in their cgroups.
after() {
    expect "$@"
    sleep 2
    expect "$1: placed processes stay" is_placed $standing
}
after "daemon-reload" systemctl daemon-reload
after "daemon-reexec" systemctl daemon-reexec
after "restart" daemon
killed() { systemctl kill -s KILL cgruled.service && sleep 1 && within 30 is_ready; }
after "kill -9" killed
expect "no unit failed" test -z "$(systemctl list-units --failed --plain --no-legend)"

# The slices of users are in the hierarchy of systemd, their limits in those of the controllers.
rules <<'RULES'
[unit."user-%U.slice"]
users = ["bob"]
pids.max = 150
RULES
systemctl reload cgruled.service
su -l bob -c 'sleep 1000' </dev/null >/dev/null 2>&1 &
disown
slice=/sys/fs/cgroup/pids/user.slice/user-$(id -u bob).slice
expect "the slice of a user has its limit" within 20 grep -qx 150 "$slice/pids.max"
rules </dev/null
systemctl reload cgruled.service
expect "it is taken back" within 20 grep -vqx 150 "$slice/pids.max"
# The slice exists before the login executes its command.
within 20 pgrep -u bob -x sleep
pkill -u bob -x sleep
