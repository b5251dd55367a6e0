# The delegated ground: found, made, with all controllers.
. /vm/scenario.bash

settings <<'END'
root = "/cgruled.slice/cgruled-pool.service"
END
rules <<'END'
[[rule]]
user = ["alice", "bob"]
cgroup = "people/%u"
[cgroup."people/%u"]
cpu.weight = 50
io.weight = 20
memory.high = "200M"
pids.max = 100
END
expect "the daemon starts" daemon
expect "the ground is there" systemctl is-active cgruled-pool.service
as alice sleep 1000
expect "a process is placed below the ground" in_group $pid people/alice
for file in cpu.weight=50 memory.high=209715200 pids.max=100; do
    expect "${file%=*} is set" grep -qx "${file#*=}" "$ground/people/alice/${file%=*}"
done
expect "io.weight is set" grep -q "20" "$ground/people/alice/io.weight"
say "$(cat $ground/people/alice/cgroup.controllers); $(grep . $ground/people/alice/io.* | tr '\n' ' ')"
expect "no warnings" test -z "$(journalctl -q -b -p warning -o cat -u cgruled.service)"
log
