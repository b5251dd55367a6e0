# Processes that systemd keeps: services without `leave_units`, the service managers of
# users; and external moves.
. /vm/scenario.bash

settings <<'END'
root = "auto"
recheck = "1s"
END
plain='[[rule]]
user = ["alice", "bob"]
cgroup = "people/%u"'
rules <<<"$plain"
daemon || exit

unit() { systemctl show -P MainPID "$1"; }
systemd-run -q --unit=shop --uid=alice sleep 1000
shop=$(unit shop)
expect "a log line reports it" within 10 said "shop.service"
expect "a process in a service stays there" is_in "$shop" /system.slice/shop.service
expect "it is counted" within 10 grep -q "unit" <(systemctl status cgruled.service)
rules <<<"$plain
leave_units = true"
systemctl reload cgruled.service
expect "leave_units = true moves it" in_group "$shop" people/alice
rules <<<"$plain"
systemctl reload cgruled.service
systemctl stop shop.service

# atd keeps the real UID of root and takes the effective UID of the user daemon.
rules <<'END'
[[rule]]
user = ["daemon", "alice"]
cgroup = "people/%u"
END
systemctl reload cgruled.service
# From a file, because systemd-run expands dollars.
cat >/var/tmp/atd.pl <<'END'
$> = getpwnam "daemon";
unless (fork) {
    $> = 0;
    exec qw(setpriv --reuid=alice --clear-groups sleep 1004);
}
sleep 1 while 1;
END
systemd-run -q --unit=atd perl /var/tmp/atd.pl
atd=$(unit atd)
expect "a job of atd is placed" within 10 eval 'in_group "$(pgrep -u alice -xf "sleep 1004")" people/alice'
expect "atd stays in its service" is_in "$atd" /system.slice/atd.service
systemctl stop atd.service
rules <<<"$plain"
systemctl reload cgruled.service

# Settings on a unit, from the hardened service.
cat >/run/systemd/system/store.service <<'END'
[Service]
ExecStart=sleep 1000
END
systemctl daemon-reload
systemctl start store.service
disk=$(cat /sys/block/vda/dev)
has() { # has FILE VALUE
    expect "store.service: $1" within 10 grep -qxF "$2" "/sys/fs/cgroup/system.slice/store.service/$1"
}
stores() { # stores CPU_MAX: prints the rules with settings for the unit
    cat <<END
$plain
[unit."store.service"]
cpu.weight = 50
cpu.max = "$1"
memory.min = "1M"
memory.low = "2M"
memory.high = "100M"
memory.max = "200M"
memory.swap.max = "16M"
io.weight = 40
io.max = "$disk rbps=50M wiops=100"
pids.max = 50
cpuset.cpus = "1"
END
}
stores "50%" | rules
systemctl reload cgruled.service
has cpu.weight 50
has cpu.max "50000 100000"
has memory.min 1048576
has memory.low 2097152
has memory.high 104857600
has memory.max 209715200
has memory.swap.max 16777216
has io.weight "default 40"
has io.max "$disk rbps=52428800 wbps=max riops=max wiops=100"
has pids.max 50
has cpuset.cpus 1
stores "20%" | rules
has cpu.max "20000 100000"
expect "systemd refused no setting" test -z "$(log -p warning | grep store.service)"
expect "cgrulectl reports it too" grep -q '"units_refused": *0' <(cgrulectl status --json)
systemctl set-property --runtime store.service MemorySwapMax=8M
rules <<<"$plain"
systemctl reload cgruled.service
has cpu.max "max 100000"
has memory.max max
has memory.swap.max 8388608 # set externally in between
systemctl -q revert store.service
# systemd 257 does not write this to the cgroup.
expect "nothing of cgruled is left" test "$(systemctl show -P MemorySwapMax store.service)" = infinity
systemctl stop store.service
rm /run/systemd/system/store.service
systemctl daemon-reload

# A user with an own service manager and a rule for all processes of the user.
loginctl enable-linger alice
id=$(id -u alice)
within 30 systemctl is-active "user@$id.service"
for manager in $(pgrep -u alice -x 'systemd|\(sd-pam\)'); do
    expect "$(cat "/proc/$manager/comm") of alice is not moved" \
        is_in "$manager" "/user.slice/user-$id.slice/user@$id.service/init.scope"
done
expect "it still starts units" mine alice systemd-run -q --user --unit=work sleep 1000
expect "and scopes" mine alice systemd-run -q --user --scope true
work=$(mine alice systemctl --user show -P MainPID work)
expect "processes of its units are placed" in_group "$work" people/alice
expect "its unit is still active" mine alice systemctl --user is-active work
expect "it is not degraded" mine alice systemctl --user is-system-running
loginctl disable-linger alice
systemctl stop "user@$id.service"

# A login.
su -l bob -c 'sleep 1000' &
within 20 pgrep -u bob -x sleep
expect "a process of a login session is placed" in_group "$(pgrep -u bob -x sleep)" people/bob
expect "the session is alive" test -n "$(loginctl list-sessions --no-legend | grep bob)"
pkill -u bob -x sleep

# Moves a placed process away, twice within the recheck delay.
back() { echo "$pid" >$outside/cgroup.procs; }
as alice sleep 1000
in_group $pid people/alice
before=$(counter external_moves_found) # the service manager of alice may have moved a process that was placed
back
expect "moved away: it is moved back once" in_group $pid people/alice
back
sleep 3
expect "moved away again: it is left there" is_in $pid /outside
expect "the mover is logged" within 10 said "it is left there"
systemctl stop cgruled.service
expect "it is counted" test "$(log | grep -E '^(external_moves_found|abandoned) ' | xargs)" = \
    "external_moves_found $((before + 2)) abandoned 1"
