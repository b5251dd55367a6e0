# Limits apply to their users, and to no others.
. /vm/scenario.bash

settings <<'END'
root = "auto"
END
disk=$(cat /sys/block/vda/dev)
rules <<END
[[rule]]
user = ["alice", "bob"]
cgroup = "people/%u"
[cgroup."people/%u"]
memory.max = "64M"
memory.swap.max = 0
pids.max = 20
io.max = "$disk wbps=2M"
[[rule]]
user = "database"
cgroup = "big"
[cgroup.big]
memory.max = "400M"
cpuset.cpus = "1"
END
daemon || exit

eat='$x = "x" x ($ARGV[0] << 20); sleep 1000'
as bob perl -e "$eat" 20
bystander=$pid
as alice perl -e "$eat" 120
offender=$pid
expect "memory.max kills who is above it" within 20 test ! -e /proc/$offender/exe
as database perl -e "$eat" 120
expect "memory.max leaves who is below it" in_group $pid big
sleep 1
expect "memory.max leaves others" test -e /proc/$bystander/exe -a -e /proc/$pid/exe
expect "the kill is counted in the offender's group alone" \
    test "$(sed -n 's/^oom_kill //p' $ground/people/{alice,bob}/memory.events | xargs)" = "1 0"

as alice sh -c 'for i in $(seq 50); do sleep 1000 & done; wait'
expect "pids.max stops a fork bomb" within 10 grep -qv 'max 0' $ground/people/alice/pids.events
expect "pids.max is kept" test "$(cat $ground/people/alice/pids.current)" -le 20

# 8 MiB at 2 MiB/s. The times are those of the clock of the emulator, which io.max uses.
write='dd if=/dev/zero of=$HOME/file bs=1M count=8 oflag=direct status=none'
took() { # took USER: milliseconds of the write
    local from
    from=$(date +%s%3N)
    (become "$1" sh -c "$write")
    echo $(($(date +%s%3N) - from))
}
bob=$(took bob) web=$(took web)
say "8 MiB: $bob ms with io.max at 2 MiB/s, $web ms without"
expect "io.max slows down" test "$bob" -ge 3000
expect "io.max leaves others" test "$web" -lt "$bob"

as database sh -c "$busy"
expect "cpuset.cpus binds" within 5 grep -q 'Cpus_allowed_list:.1$' /proc/$pid/status
