# cgrulectl release: processes return to their units; those without evidence of one stay.
. /vm/scenario.bash

settings <<<'root = "auto"'
rules <<'END'
[[rule]]
user = ["alice", "bob"]
cgroup = "people/%u"
leave_units = true
END
daemon || exit

systemd-run -q --unit=shop --uid=alice sleep 1000
shop=$(systemctl show -P MainPID shop.service)
# A child of process 1, whose unit nothing tells.
as bob sh -c 'sleep 1006 & exec sleep 0'
within 10 pgrep -u bob -xf 'sleep 1006' >/dev/null
orphan=$(pgrep -u bob -xf 'sleep 1006')
expect "the main process of a service is placed" in_group "$shop" people/alice
expect "and an orphan" in_group "$orphan" people/bob
release_refused() { cgrulectl release --all 2>&1 | grep -q "daemon is running"; }
expect "a running daemon would move them again" release_refused
systemctl stop cgruled.service
output=$(cgrulectl release --all 2>&1)
code=$?
expect "the service has its process again" is_in "$shop" /system.slice/shop.service
expect "the orphan stays" in_group "$orphan" people/bob
expect "the reason is printed" grep -q "^$orphan: stays in .*its unit is unknown" <<<"$output"
expect "the exit status is 1" test $code = 1
expect "an empty cgroup is removed" test ! -e "$ground/people/alice"
kill "$orphan"
systemctl stop shop.service
systemctl start cgruled.service
