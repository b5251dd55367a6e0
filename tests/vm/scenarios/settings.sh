# Tables of settings on real v2 controllers.
. /vm/scenario.bash

settings <<'END'
root = "auto"
END
disk=$(cat /sys/block/vda/dev)
tables() { # tables CPU_MAX: prints rules with this cpu.max for alice
    cat <<END
[[rule]]
user = "alice"
cgroup = "sites/%u"
[cgroup.sites]
cpu.weight = 200
memory.max = "600M"
[cgroup."sites/%u"]
cpu.max = "$1"
cpu.weight = 30
io.weight = 40
io.max = "$disk rbps=50M wiops=100"
memory.min = "1M"
memory.low = "2M"
memory.high = "100M"
memory.max = "200M"
memory.swap.max = "16M"
pids.max = 50
cpuset.cpus = "0-1"
"memory.oom.group" = 1
owner = "alice:bob"
mode = "0750"

[[rule]]
user = "bob"
cgroup = "idle"
[cgroup.idle]
cpu.idle = 1

[[rule]]
user = "database"
cgroup = "holder"
[[rule]]
user = "web"
cgroup = "holder/inner"
[cgroup."holder/inner"]
cpu.weight = 10
END
}
tables "50%" | rules
daemon || exit
as alice sh -c "$busy"
in_group $pid sites/alice
has() { # has GROUP FILE VALUE
    expect "$1: $2" test "$(cat "$ground/$1/$2")" = "$3"
}
has sites cpu.weight 200
has sites memory.max 629145600
has sites/alice cpu.max "50000 100000"
has sites/alice cpu.weight 30
has sites/alice io.weight "default 40"
has sites/alice io.max "$disk rbps=52428800 wbps=max riops=max wiops=100"
has sites/alice memory.min 1048576
has sites/alice memory.low 2097152
has sites/alice memory.high 104857600
has sites/alice memory.max 209715200
has sites/alice memory.swap.max 16777216
has sites/alice pids.max 50
has sites/alice cpuset.cpus 0-1
has sites/alice memory.oom.group 1
expect "owner and mode of a cgroup" test "$(stat -c '%U:%G %a' "$ground/sites/alice")" = "alice:bob 750"
expect "limits still belong to root" test "$(stat -c %U "$ground/sites/alice/cpu.max")" = root

used() { cpu_stat sites/alice usage_usec; }
percent() { # percent of one processor in three seconds
    local from=$(used) start=$(date +%s%6N)
    sleep 3
    echo $((100 * ($(used) - from) / ($(date +%s%6N) - start)))
}
first=$(percent)
tables "20%" | rules
systemctl reload cgruled.service
within 10 grep -q "^20000" "$ground/sites/alice/cpu.max"
has sites/alice cpu.max "20000 100000"
second=$(percent)
say "cpu.max 50 %: $first %, after a reload with 20 %: $second %"
expect "cpu.max is enforced" test "$first" -ge 40 -a "$first" -le 60 -a "$second" -ge 14 -a "$second" -le 26

as bob sleep 1000
expect "a cgroup with cpu.idle" in_group $pid idle
has idle cpu.idle 1

as database sleep 1000
in_group $pid holder
as web sleep 1000
expect "a process is placed though a controller cannot be enabled" in_group $pid holder/inner
expect "the reason is logged" within 10 said "the cgroup contains processes"
log -p warning
