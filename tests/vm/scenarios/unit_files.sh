# The unit files, as systemd sees them.
. /vm/scenario.bash

units=(cgruled.service cgruled-pool.service cgruled.slice)
for unit in "${units[@]}"; do
    # Of our units alone: `verify` reads on and complains of others.
    expect "verify $unit" test -z "$(systemd-analyze verify "$unit" 2>&1 | grep cgruled)"
done
expect "exposure is 2.5 at most" systemd-analyze security --threshold=25 cgruled.service
say "$(systemd-analyze security cgruled.service | tail -n 1)"
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
expect "the status is said" test -n "$(systemctl show -P StatusText cgruled.service)"
say "$(systemctl show -P StatusText cgruled.service)"
settings </dev/null
expect "restart" daemon
watchdog() { systemctl show -P WatchdogTimestampMonotonic cgruled.service; }
first=$(watchdog)
expect "the watchdog is fed" within 25 test "$(watchdog)" != "$first"
expect "no complaint" test -z "$(journalctl -q -p warning -o cat _SYSTEMD_INVOCATION_ID="$(systemctl show -P InvocationID cgruled.service)")"
