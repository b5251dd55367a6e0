# The delegated subtree: found, created, with all controllers.
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
io.weight = 20
memory.high = "200M"
pids.max = 100
END
expect "the daemon starts" daemon
expect "the pool is active" systemctl is-active cgruled-pool.service
as alice sleep 1000
expect "a process is placed below the pool" in_group $pid people/alice
for file in cpu.weight=50 memory.high=209715200 pids.max=100; do
    expect "${file%=*} is set" grep -qx "${file#*=}" "$ground/people/alice/${file%=*}"
done
expect "io.weight is set" grep -q "20" "$ground/people/alice/io.weight"
expect "no warnings" test -z "$(log -p warning)"

# Controllers that systemd has not delegated are not enabled.
above() { cat /sys/fs/cgroup/{,cgruled.slice/}cgroup.subtree_control; }
before=$(above)
rules <<'END'
[[rule]]
user = "bob"
cgroup = "huge"
[cgroup.huge]
hugetlb.2MB.max = "4M"
END
systemctl reload cgruled.service
as bob sleep 1000
expect "a process is placed though its controller is not delegated" in_group $pid huge
expect "the reason is logged" within 10 said "cannot enable controller hugetlb"
expect "nothing is enabled above the pool" test "$(above)" = "$before"
log -p warning
