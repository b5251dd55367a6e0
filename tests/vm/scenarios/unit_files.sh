# The unit files, as systemd loads them.
. /vm/scenario.bash

units=(cgruled.service cgruled-groups.service cgruled-pool.service cgruled.slice)
for unit in "${units[@]}"; do
    expect "verify $unit" verifies "$unit"
done
sed 's/^Type=.*/Type=sometimes/' /usr/lib/systemd/system/cgruled.service >/tmp/cgruled-wrong.service
not() { ! "$@"; }
expect "verify detects an invalid unit" not verifies /tmp/cgruled-wrong.service
expect "exposure is 2.8 at most" systemd-analyze security --threshold=28 cgruled.service
say "$(systemd-analyze security cgruled.service | tail -n 1)"
expect "exposure of cgruled-groups is 3.0 at most" systemd-analyze security --threshold=30 cgruled-groups.service
say "$(systemd-analyze security cgruled-groups.service | tail -n 1)"
cat >/etc/cgconfig.conf <<'END'
group vm-groups {
    perm {
        task { uid = alice; gid = alice; }
        admin { uid = alice; gid = alice; }
    }
    cpu { cpu.weight = 50; }
}
END
expect "cgruled-groups creates cgroups" systemctl restart cgruled-groups.service
say "$(journalctl -q -o cat -u cgruled-groups.service | tail -n 6)"
made=$(find /sys/fs/cgroup -name vm-groups)
expect "with their settings" grep -qx 50 "$made/cpu.weight"
expect "with their owner" test "$(stat -c %U "$made")" = alice
systemctl stop cgruled-groups.service
rmdir "$made"
rm /etc/cgconfig.conf
expect "the group of the control socket" getent group cgruled

settings <<'END'
log = { file = "/var/log/cgruled/log" }
END
rules <<'END'
[[rule]]
user = "alice"
cgroup = "people/%u"
END
systemctl restart cgruled.service
expect "a log in /var/log/cgruled" within 10 grep -q "ready" /var/log/cgruled/log
has_filter() { grep -qx 'Seccomp:	2' "/proc/$(systemctl show -P MainPID cgruled.service)/status"; }
expect "the daemon runs with a filter of system calls" has_filter
expect "the status is reported" test -n "$(systemctl show -P StatusText cgruled.service)"
say "$(systemctl show -P StatusText cgruled.service)"
settings <<'END'
log.level = "debug"
END
daemon
as alice sleep 1000
in_group $pid people/alice
moved() {
    log -o json MESSAGE_ID=4240c675d750478992a83c0cd7f72b9a "CGR_PID=$pid" |
        grep '"OBJECT_EXE":' | grep '"CGR_RULE_LINE":"3"' | grep '"CGR_LATENCY_US":'
}
expect "a move is in the journal with its fields" within 10 moved
settings </dev/null
mkdir -p /run/cgruled/rules.d
expect "restart" daemon
expect "rules in /run survive a restart" test -d /run/cgruled/rules.d
rmdir /run/cgruled/rules.d
watchdog() { systemctl show -P WatchdogTimestampMonotonic cgruled.service; }
first=$(watchdog)
was_fed() { [ "$(watchdog)" != "$first" ]; }
expect "the watchdog is fed" within 25 was_fed
expect "no warning" test -z "$(log -p warning)"

socket=/run/cgruled/control.sock
expect "the control socket exists" within 5 test -S $socket
expect "it belongs to root and the group" test "$(stat -c '%U:%G' $socket)" = root:cgruled
expect "root may query" cgrulectl status
asks() { setpriv --reuid=alice --regid=alice "$@" cgrulectl status; }
expect "members of the group may query" asks --groups=cgruled
refused() { ! "$@"; }
expect "others may not" refused asks --clear-groups
as alice sleep 1000
in_group $pid people/alice
expect "explain" cgrulectl explain $pid
leave

# A daemon that is stopped is restarted.
mkdir -p /run/systemd/system/cgruled.service.d
printf '[Service]\nWatchdogSec=4\nTimeoutAbortSec=1\n' >/run/systemd/system/cgruled.service.d/watchdog.conf
systemctl daemon-reload
daemon
systemctl kill -s STOP cgruled.service
restarted() { [ "$(systemctl show -P NRestarts cgruled.service)" -ge 1 ] && is_ready; }
expect "a daemon that is stopped is restarted" within 40 restarted
rm -r /run/systemd/system/cgruled.service.d
systemctl daemon-reload
