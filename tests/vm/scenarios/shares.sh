# CPU weights divide busy processors, and only busy ones.
. /vm/scenario.bash

settings <<'END'
root = "auto"
END
for user in alice=1000 bob=100 database=300 web=100; do
    cat <<END
[[rule]]
user = "${user%=*}"
cgroup = "${user%=*}"
[cgroup.${user%=*}]
cpu.weight = ${user#*=}
END
done | rules
daemon || exit

# ratio A B SECONDS: prints 100 times the CPU time of group A during SECONDS, divided by that of B.
ratio() {
    local a b
    a=$(cpu_stat "$1" usage_usec) b=$(cpu_stat "$2" usage_usec)
    sleep "$3"
    a=$(($(cpu_stat "$1" usage_usec) - a)) b=$(($(cpu_stat "$2" usage_usec) - b))
    echo $((100 * a / (b + 1)))
}
# share GROUP SECONDS: prints the percentage of one processor.
share() {
    local used from
    used=$(cpu_stat "$1" usage_usec) from=$(date +%s%6N)
    sleep "$2"
    echo $((100 * ($(cpu_stat "$1" usage_usec) - used) / ($(date +%s%6N) - from)))
}
between() { [ "$1" -ge "$2" ] && [ "$1" -le "$3" ]; }

# Before Linux 6.2 a move to a cgroup with a cpuset resets the CPU affinity of the
# process, so it is set after the move.
for user in alice bob; do
    as $user sh -c "$busy"
    in_group $pid $user
    expect "$user is bound to a processor" taskset -cp 1 $pid
done
sleep 1
hundred=$(ratio alice bob 6)
say "weights 10:1, one busy process each on one processor: $hundred:100"
expect "weights divide a busy processor 10:1 within 15 %" between "$hundred" 850 1150
leave

for user in database web; do
    for _ in 1 2 3; do
        as $user sh -c "$busy"
        in_group $pid $user
        [ $user = web ] || database+=($pid)
    done
done
sleep 1
hundred=$(ratio database web 6)
say "database and web at 3:1, three busy processes each on two processors: $hundred:100"
expect "a database and a web server get their shares" between "$hundred" 225 375
kill -STOP "${database[@]}"
percent=$(share web 3)
say "web alone: $percent % of 200 %"
expect "web bursts when the database is idle" between "$percent" 150 205
kill -CONT "${database[@]}"
sleep 1
hundred=$(ratio database web 4)
say "both again: $hundred:100"
expect "the database has its share again at once" between "$hundred" 225 375
leave

# All placed processes against all services: the weight of cgruled.slice against that of system.slice.
systemctl set-property --runtime cgruled.slice CPUWeight=1000
as alice sh -c "$busy"
in_group $pid alice
taskset -cp 1 $pid >/dev/null
systemd-run -q --unit=busy sh -c "$busy"
taskset -cp 1 "$(systemctl show -P MainPID busy.service)" >/dev/null
sleep 1
hundred=$(ratio . ../../system.slice/busy.service 6)
say "cgruled.slice and system.slice at 10:1, one busy process each on one processor: $hundred:100"
# Other services of system.slice use some time too, so the share of the one service is
# less than that of the slice.
expect "the weight of cgruled.slice applies against services" between "$hundred" 800 1500
systemctl stop busy.service
systemctl -q revert cgruled.slice
