# External moves: by a user with the own service manager, by systemd, by container engines.
. /vm/scenario.bash

settings <<'CGRULED'
root = "auto"
CGRULED
rules <<'CGRULED'
[[rule]]
user = ["alice", "bob"]
cgroup = "people/%u"
CGRULED
daemon || exit
expect "the hardened unit traces moves" within 10 grep -q "traced by the kernel" \
    <(cgrulectl status)

id=$(id -u alice)
loginctl enable-linger alice
within 30 systemctl is-active "user@$id.service"
manager=org.freedesktop.systemd1
call() { mine alice busctl --user call $manager /org/freedesktop/systemd1 $manager.Manager "$@"; }
scope() { # scope NAME PID: creates a scope of alice with the process
    call StartTransientUnit 'ssa(sv)a(sa(sv))' "$1.scope" fail 1 PIDs au 1 "$2" 0
}
people=${ground#/sys/fs/cgroup}/people/alice
# outside_of_rules: succeeds if all processes of alice are in the cgroup of their rule; prints the count.
outside_of_rules() {
    local pid count=0
    for pid in $(pgrep -u alice -x sleep); do is_in "$pid" "$people" || count=$((count + 1)); done
    echo "$count outside of $(pgrep -u alice -x sleep | wc -l)"
    [ $count = 0 ]
}

# explains PID TEXT: succeeds if the explanation of the process has the text; prints it otherwise.
explains() {
    local text
    text=$(cgrulectl explain "$1" | tr -s ' \n' ' ') # without line breaks
    [[ $text == *"$2"* ]] || { echo "$text" && return 1; }
}

as alice sleep 1000
in_group $pid people/alice
sleep 2
before=$(counter external_moves_found)
expect "systemd moves a process for the user" scope esc $pid
expect "it is moved back" in_group $pid people/alice
# The service manager may not move the process itself and requests it from PID 1.
# Not from the log: the manager may have moved one of its own processes in the last ten seconds, and only one move in
# that time is logged.
expect "the mover is named" within 10 explains $pid "systemd (process 1 of uid 0"
expect "and counted" test "$(counter external_moves_found)" -gt "$before"

# With children, which are born in the scope.
as alice sh -c 'sleep 3; for n in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; wait'
family=$pid
in_group $family people/alice
scope family $family
expect "children after the call are placed" within 20 outside_of_rules

# In a loop.
(for n in $(seq 40); do scope "loop$n" $pid; done) >/dev/null 2>&1
expect "calls in a loop gain nothing" within 10 outside_of_rules
expect "none was abandoned" test "$(counter abandoned)" = 0

# By PID 1, on request of the service manager.
mine alice systemd-run -q --user --unit=host sleep 1000
in_group "$(mine alice systemctl --user show -P MainPID host.service)" people/alice
call AttachProcessesToUnit ssau host.service "" 1 $pid
expect "AttachProcessesToUnit gains nothing" within 10 outside_of_rules
expect "a namespace gains nothing" mine alice systemd-run -q --user --unit=ns unshare -UpC --fork sleep 1001
expect "its process is placed" within 10 outside_of_rules
within 10 pgrep -u alice -f 'sleep 1001'
expect "it too" in_group "$(pgrep -u alice -f '^sleep 1001')" people/alice
# systemd-run requests its own unit and fails if it was moved back before; so it may take several attempts.
for n in 1 2 3 4 5; do
    mine alice systemd-run --user --scope --unit=app-flatpak-x$n sleep 1002 >/tmp/scope.log 2>&1 &
    within 3 pgrep -u alice -f '(^|/)sleep 1002$' >/dev/null && break
done
pgrep -u alice -f '(^|/)sleep 1002$' >/dev/null || say "$(cat /tmp/scope.log)"
expect "nor does the name of a scope" in_group "$(pgrep -o -u alice -f '(^|/)sleep 1002$')" people/alice

before=$(counter external_moves_found)
systemctl daemon-reload
call Reload
sleep 3
expect "daemon-reload is no external move" test "$(counter external_moves_found)" = "$before"

# A program that creates namespaces of root for any user.
install -m 4755 "$(command -v unshare)" /usr/local/bin/boxed
mkdir /sys/fs/cgroup/system.slice/cron.service/job 2>/dev/null
cron=/sys/fs/cgroup/system.slice/cron.service
(echo $BASHPID >$cron/cgroup.procs && exec setpriv --reuid=alice --regid=alice --init-groups \
    /usr/local/bin/boxed -p -f -S "$id" sleep 1003) &
within 10 pgrep -u alice -f '^sleep 1003'
expect "a set-user-ID program in cron gains nothing" in_group "$(pgrep -u alice -f '^sleep 1003')" people/alice

# A container that root created, as engines without systemd do: a cgroup and namespaces.
box=/sys/fs/cgroup/lxc.payload.box
mkdir $box
echo 64M >$box/memory.max
(echo $BASHPID >$box/cgroup.procs && exec unshare -p -C -f --mount-proc setpriv --reuid="$id" --regid="$id" \
    --clear-groups sleep 1004) &
within 10 pgrep -f '^sleep 1004'
sleep 3
inside=$(pgrep -f '^sleep 1004')
expect "a process in a container stays there" is_in "$inside" /lxc.payload.box
expect "explain reports it" grep -q "is left in its container" <(cgrulectl explain "$inside")
expect "and it is counted" test "$(counter kept_in_container)" -gt 0
rules <<'CGRULED'
[[rule]]
user = "alice"
containers = true
cgroup = "people/%u"
CGRULED
systemctl reload cgruled.service
expect "containers = true moves it" in_group "$inside" people/alice

# A job of bob below the service manager of a user without a moving rule, and of one with such a rule.
loginctl enable-linger web
web=$(id -u web)
within 30 systemctl is-active "user@$web.service"
rules <<'CGRULED'
[[rule]]
user = ["alice", "bob"]
cgroup = "people/%u"
CGRULED
systemctl reload cgruled.service
job() { # job UID NUMBER
    local group=/sys/fs/cgroup/user.slice/user-$1.slice/user@$1.service/app.slice/job.scope
    mkdir -p "$group"
    (echo $BASHPID >"$group/cgroup.procs" && exec setpriv --reuid=bob --regid=bob --init-groups sleep "$2") &
    within 10 pgrep -u bob -f "^sleep $2"
}
job "$web" 1005
sleep 3
expect "a job of bob stays below the manager of web" is_in "$(pgrep -u bob -f '^sleep 1005')" \
    "/user.slice/user-$web.slice/user@$web.service/app.slice/job.scope"
job "$id" 1006
expect "but not below that of alice" in_group "$(pgrep -u bob -f '^sleep 1006')" people/bob

pkill -KILL -x sleep
loginctl disable-linger alice
loginctl disable-linger web
