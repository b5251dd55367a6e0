# What systemd keeps: services that are not to be left, the managers of users, and takers.
. /vm/scenario.bash

settings <<'END'
root = "auto"
recheck = "1s"
END
plain='[[rule]]
user = ["alice", "bob"]
cgroup = "people/%u"'
rules <<<"$plain"
daemon || exit

unit() { systemctl show -P MainPID "$1"; }
systemd-run -q --unit=shop --uid=alice sleep 1000
shop=$(unit shop)
sleep 2
expect "a process in a service stays there" is_in "$shop" /system.slice/shop.service
expect "that it stays is said" said "shop.service"
expect "it is counted" within 10 grep -q "unit" <(systemctl status cgruled.service)
rules <<<"$plain
leave_units = true"
systemctl reload cgruled.service
expect "leave_units = true takes it out" in_group "$shop" people/alice
rules <<<"$plain"
systemctl reload cgruled.service
systemctl stop shop.service

# A user with a manager of his own, while a rule is for all that he runs.
loginctl enable-linger alice
id=$(id -u alice)
within 30 systemctl is-active "user@$id.service"
for manager in $(pgrep -u alice -x 'systemd|\(sd-pam\)'); do
    expect "$(cat "/proc/$manager/comm") of alice is not moved" \
        is_in "$manager" "/user.slice/user-$id.slice/user@$id.service/init.scope"
done
mine() { setpriv --reuid=alice --regid=alice --init-groups env XDG_RUNTIME_DIR="/run/user/$id" "$@"; }
expect "it still starts units" mine systemd-run -q --user --unit=work sleep 1000
expect "and scopes" mine systemd-run -q --user --scope true
work=$(mine systemctl --user show -P MainPID work)
expect "what it starts is placed" in_group "$work" people/alice
expect "its unit is still active" mine systemctl --user is-active work
expect "it is not degraded" mine systemctl --user is-system-running
loginctl disable-linger alice
systemctl stop "user@$id.service"

# A login.
su -l bob -c 'sleep 1000' &
within 20 pgrep -u bob -x sleep
expect "a process of a login session is placed" in_group "$(pgrep -u bob -x sleep)" people/bob
expect "the session lives on" test -n "$(loginctl list-sessions --no-legend | grep bob)"
pkill -u bob -x sleep

# Somebody moves a placed process away, twice within the second look.
back() { echo "$pid" >$outside/cgroup.procs; }
as alice sleep 1000
in_group $pid people/alice
back
expect "taken back: it is put back once" in_group $pid people/alice
back
sleep 3
expect "taken back again: it is left there" is_in $pid /outside
expect "who took it is said" within 10 said "it is left there"
systemctl stop cgruled.service
expect "it is counted" test "$(log | grep -E '^(taken_back|given_up) ' | xargs)" = "taken_back 2 given_up 1"
