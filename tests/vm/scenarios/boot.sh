# The daemon runs before any user can log in.
. /vm/scenario.bash

if [ "${1:-}" != rebooted ]; then
    rules <<'END'
[[rule]]
user = "bob"
cgroup = "people/%u"
END
    settings </dev/null
    systemctl -q enable cgruled.service
    echo '@reboot bob exec sleep 1000' >/etc/cron.d/bob
    loginctl enable-linger alice
    exit 75
fi
expect "started at boot" systemctl is-active cgruled.service
expect "no unit failed" test -z "$(systemctl list-units --failed --plain --no-legend)"
when() { systemctl show -P "$2" "$1"; }
ready=$(when cgruled.service ActiveEnterTimestampMonotonic)
for later in systemd-user-sessions.service cron.service getty.target "user@$(id -u alice).service"; do
    start=$(when "$later" InactiveExitTimestampMonotonic)
    say "ready at $((ready / 1000)) ms, $later began at $((start / 1000)) ms"
    expect "before $later" test "$start" -ge "$ready"
done
within 20 pgrep -u bob -x sleep
job=$(pgrep -u bob -x sleep)
expect "a job that cron started at boot is placed" in_group "$job" people/bob
rm /etc/cron.d/bob
# Other scenarios need alice without a service manager.
loginctl disable-linger alice
systemctl stop "user@$(id -u alice).service"
