# The modes of fast_moves work under the hardened unit. Their effect is printed.
. /vm/scenario.bash

rules <<'END'
[[rule]]
user = ["alice", "bob"]
cgroup = "people/%u"
END
# measure MODE: starts the daemon in MODE and sets $p50 to the median of isolated moves in microseconds.
measure() {
    settings <<END
root = "auto"
fast_moves = "$1"
END
    daemon || return
    for _ in {1..25}; do
        as alice sleep 20
        sleep 0.15
    done
    during=$(cat /sys/kernel/rcu_expedited)
    systemctl stop cgruled.service
    p50=$(log | sed -n 's/^latency_p50_us //p')
    say "$1: median $p50 us, ${off:+$(perl -e 'printf "%.2f", $ARGV[0] / $ARGV[1]' "$p50" "$off") of off}"
}
measure off
off=$p50
measure warm
expect "warm" test -z "$(log | grep fast_moves)"
measure auto
expect "auto" test -z "$(log | grep fast_moves)"
expect "auto leaves the switch unset" test "$during" = 0
record=/run/cgruled/rcu_expedited
expect "auto has recorded that" test "$(cat $record)" = 0
# As after a crash between the two writes.
daemon
echo 1 >$record
echo 1 >/sys/kernel/rcu_expedited
kill -KILL "$(systemctl show -P MainPID cgruled.service)"
switch_is() { [ "$(cat /sys/kernel/rcu_expedited)" = "$1" ]; }
expect "the switch is restored after a crash" within 20 switch_is 0
within 20 is_ready
systemctl stop cgruled.service
echo 1 >$record
echo 1 >/sys/kernel/rcu_expedited
daemon
expect "the switch is restored at startup" switch_is 0
expect "and that is logged" said "ended during a move"
systemctl stop cgruled.service
echo 1 >/sys/kernel/rcu_expedited
measure auto
expect "a switch that the administrator has set stays set" switch_is 1
echo 0 >/sys/kernel/rcu_expedited
echo 1 >/sys/kernel/rcu_normal
measure auto
expect "rcu_normal is respected, with the reason" said "rcu_normal is 1"
echo 0 >/sys/kernel/rcu_normal
measure expedited
expect "expedited" test "$during" = 1
expect "expedited is undone" test "$(cat /sys/kernel/rcu_expedited)" = 0
measure favordynmods
expect "favordynmods without the right to mount is reported" within 10 said "fast_moves: Operation not permitted"

mkdir -p /run/systemd/system/cgruled.service.d
cp /vm/packaging/systemd/favordynmods.conf /run/systemd/system/cgruled.service.d
systemctl daemon-reload
measure favordynmods
expect "favordynmods with its drop-in" grep -q favordynmods /proc/self/mountinfo
expect "favordynmods logs no diagnostic" test -z "$(log | grep fast_moves)"
rm -r /run/systemd/system/cgruled.service.d
systemctl daemon-reload
