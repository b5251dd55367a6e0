# Rules on the origin of a process: unit, from and login, with the units and logins of systemd.
. /vm/scenario.bash

settings <<'END'
root = "auto"
END
alice=$(id -u alice)
# elsewhere PID GROUP: succeeds if the process is not in this cgroup of a rule.
elsewhere() { ! is_in "$1" "${ground#/sys/fs/cgroup}/$2"; }
rules <<'END'
[[rule]]
name = "jobs of cron"
unit = "cron.service"
user = ["alice", "bob"]
cgroup = "jobs/%u"

[[rule]]
name = "the web workers"
unit = "web.service"
argument = "worker"
cgroup = "workers"
leave_units = "web.service"

[[rule]]
name = "sessions"
unit = "session-*.scope"
user = "alice"
cgroup = "sessions/%u"

[[rule]]
name = "what alice starts as root"
user = 0
login = "alice"
exe = "/usr/bin/sleep"
cgroup = "admin"
leave_units = true
END
cat >/usr/local/bin/web <<'END'
#!/bin/sh
[ "$1" != start ] || { web worker & web log & wait; }
# The second child is born after the move: one of before stays, because its own arguments do not match.
[ "$1" = start ] || { sleep 10; sleep 1000; }
END
chmod 755 /usr/local/bin/web
cat >/run/systemd/system/web.service <<'END'
[Service]
ExecStart=/usr/local/bin/web start
END
systemctl daemon-reload
daemon || exit
expect "check reports no warning" cgrulectl check --strict

# A service: one of its processes by its argument, the others stay.
systemctl start web.service
web() { pgrep -f "web $1"; }
expect "the worker of the service is placed" in_group "$(within 30 web worker && web worker)" workers
child() { pgrep -xf "sleep 1000" -P "$(web worker)"; }
within 60 child
expect "and its child" in_group "$(child)" workers
expect "the other process stays in the service" \
    is_in "$(within 30 web log && web log)" /system.slice/web.service
expect "explain names unit and arguments" grep -Eq "unit +none|unit +unknown" <(cgrulectl explain "$(web worker)")
expect "explain names the unit of the other" grep -Eq "unit +web.service" <(cgrulectl explain "$(web log)")
systemctl reload cgruled.service
sleep 2
expect "a reload changes nothing" in_group "$(web worker)" workers
daemon || exit
sleep 2
expect "nor does a restart" in_group "$(web worker)" workers

# A session, and what it starts as root.
su -l alice -c 'sleep 2001' </dev/null >/dev/null 2>&1 &
disown
within 30 pgrep -u alice -f 'sleep 2001'
expect "a session of alice is placed" in_group "$(pgrep -u alice -f 'sleep 2001')" sessions/alice
(echo "$alice" >/proc/self/loginuid && exec sleep 2002) &
disown
within 30 pgrep -f 'sleep 2002'
expect "a process of root with her login is placed" in_group "$(pgrep -f 'sleep 2002')" admin
sleep 2003 &
disown
sleep 2
expect "one without is not" elsewhere "$(pgrep -f 'sleep 2003')" admin

# The login stays that of the user below sudo.
echo 'alice, bob ALL=(root) NOPASSWD: /usr/bin/sleep' >/etc/sudoers.d/origin
chmod 440 /etc/sudoers.d/origin
# sudo_as USER SECONDS: starts sleep as root with sudo, as in a login of the user.
sudo_as() {
    local uid
    uid=$(id -u "$1")
    (echo "$uid" >/proc/self/loginuid &&
        exec setpriv --reuid="$1" --regid="$1" --init-groups sudo -n /usr/bin/sleep "$2") &
    disown
    within 30 pgrep -u root -xf "/usr/bin/sleep $2"
}
sudo_as alice 2006
sudo_as bob 2007
expect "what alice starts with sudo is placed" in_group "$(pgrep -u root -xf '/usr/bin/sleep 2006')" admin
sleep 2
expect "what bob starts with sudo is not" elsewhere "$(pgrep -u root -xf '/usr/bin/sleep 2007')" admin
rm /etc/sudoers.d/origin

# A user can name a unit of the own service manager like one of the system.
within 30 systemctl is-active "user@$alice.service"
mine alice systemd-run -q --user --unit=cron sleep 2004
sleep 2
expect "a unit of a user's manager does not count" elsewhere "$(pgrep -f 'sleep 2004')" jobs/alice

# The unit of a job that was placed.
(echo $BASHPID >/sys/fs/cgroup/system.slice/cron.service/cgroup.procs || exit
    exec setpriv --reuid=alice --regid=alice --init-groups sleep 2005) &
disown
within 30 pgrep -u alice -f 'sleep 2005'
expect "a job of cron is placed" in_group "$(pgrep -u alice -f 'sleep 2005')" jobs/alice
job=$(pgrep -u alice -f 'sleep 2005')
in_group "$job" jobs/alice
sleep 2
before=$(counter external_moves_found)
manager=org.freedesktop.systemd1
expect "systemd moves it for alice" mine alice busctl --user call $manager /org/freedesktop/systemd1 $manager.Manager \
    StartTransientUnit 'ssa(sv)a(sa(sv))' esc.scope fail 1 PIDs au 1 "$job" 0
counted() { [ "$(counter external_moves_found)" -gt "$before" ]; }
expect "which is found" within 10 counted
expect "and reverted" in_group "$job" jobs/alice
systemctl stop web.service
rm /run/systemd/system/web.service /usr/local/bin/web
systemctl daemon-reload
# The scenarios after this one expect no process and no session of alice.
pkill -f 'sleep 200[0-9]$'
loginctl terminate-user alice
within 30 test ! -e "/sys/fs/cgroup/user.slice/user-$alice.slice"
