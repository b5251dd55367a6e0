# A PID space of 4,096, steps of the wall clock, frozen tasks, and a daemon that is stopped for a while.
. /vm/scenario.bash

settings <<'END'
root = "auto"
END
rules <<'END'
[[rule]]
user = ["alice", "bob"]
cgroup = "people/%u"
END
daemon || exit

# Every PID is used several times.
sysctl -q kernel.pid_max=4096
churn() {
    local output code group
    # Not from the unit of this script, which rules leave alone.
    output=$(
        for group in "${outside[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
        exec /vm/programs/churn "$1" 100 "$(id -u alice)" /people/alice "$(id -u bob)" /people/bob
    )
    code=$?
    say "$1 processes: $output" >&4
    return $code
}
exec 4>&1
expect "10,000 processes in 4,096 PIDs: none is wrong" churn 10000
sysctl -q kernel.pid_max=32768

# step SECONDS: changes the wall clock by this much.
step() { date -s "@$(($(date +%s) + $1))" >/dev/null; }
for seconds in 86400 -172800 86400; do
    step $seconds
    as alice sleep 1000
    expect "the wall clock is changed by $seconds s: a process is placed" in_group $pid people/alice
done

# As a suspended machine does, but for the devices; the kernel thaws them after five seconds.
if [ -e /sys/power/pm_test ]; then
    echo freezer >/sys/power/pm_test
    (sleep 1 && become bob sleep 1000) </dev/null >/dev/null 2>&1 &
    pid=$!
    started+=($pid)
    echo freeze >/sys/power/state
    expect "a process of a frozen machine is placed" in_group $pid people/bob
    echo none >/sys/power/pm_test
else
    say "this kernel cannot freeze tasks for a test"
fi

systemctl kill -s STOP cgruled.service
as bob sleep 1000
stopped=$pid
systemctl kill -s CONT cgruled.service
expect "a process of a stopped daemon's time is placed" in_group $stopped people/bob
expect "300 processes after that" churn 300
expect "no evaluation was refused" [ "$(counter refused)" = 0 ]
