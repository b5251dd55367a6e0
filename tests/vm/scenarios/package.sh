# The life of the packages: install, rules of another package, broken and mended, upgrade under load,
# downgrade, the drop-in beside cgroup-tools, reboot, remove, purge.
. /vm/scenario.bash
shopt -s nullglob

packages=(/vm/packages/cgruled_*.deb)
if [ ${#packages[@]} = 0 ]; then
    say "left out: no packages were given (CGRULED_VM_PACKAGES)"
    exit 0
fi
ours=${packages[0]}
dropin=(/vm/packages/cgruled-cgrulesengd_*.deb)
export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -o Debug::NoLocking=1 -y --allow-downgrades "$@"; }
active() { systemctl is-active cgruled.service; }
main_pid() { systemctl show -P MainPID cgruled.service; }

# another VERSION: a package of somebody else; its rule file comes from standard input.
another() {
    local tree=/tmp/another
    rm -rf $tree
    mkdir -p $tree/DEBIAN $tree/usr/lib/cgruled/rules.d
    cat >$tree/usr/lib/cgruled/rules.d/60-another.toml
    printf '%s\n' "Package: another" "Version: $1" "Architecture: all" \
        "Maintainer: nobody <nobody@localhost>" "Description: rules of another package" \
        >$tree/DEBIAN/control
    dpkg-deb --root-owner-group --build $tree /tmp/another.deb && dpkg -i /tmp/another.deb
}

# newer: our package with a higher version, as it would be after a rebuild.
newer() {
    rm -rf /tmp/newer
    dpkg-deb -R "$ours" /tmp/newer
    sed -i 's/^Version: .*/&+newer/' /tmp/newer/DEBIAN/control
    dpkg-deb --root-owner-group --build /tmp/newer /tmp/newer.deb >/dev/null
}

status_says() { systemctl status cgruled.service | grep -F -- "$1"; }
errors() { journalctl -q -b -p err -o cat -u cgruled.service | grep -v "60-another.toml" | grep .; }

if [ "${1:-}" != rebooted ]; then
    apt purge cgruled cgruled-cgrulesengd >/dev/null 2>&1
    rm -rf /etc/cgruled
    systemctl daemon-reload

    expect "the package installs without any configuration" apt install "$ours"
    expect "the service runs after that" active
    expect "it waits for the first look at all processes" status_says "rules"
    expect "the samples move nothing" test ! -e "$ground/people"
    expect "systemd-analyze verify is content" \
        systemd-analyze verify cgruled.service cgruled-pool.service cgruled.slice

    as alice sleep 1000
    standing=$pid
    another 1.0 >/dev/null <<'END'
version = 1
[[rule]]
name = "another"
user = "alice"
cgroup = "another/%u"
END
    expect "a rule file of another package is live without a script" in_group $standing another/alice
    cat >/etc/cgruled/rules.d/70-bob.toml <<'END'
version = 1
[[rule]]
user = "bob"
cgroup = "people/bob"
END
    as bob sleep 1000
    expect "so is one of the administrator" in_group $pid people/bob

    another 1.1 >/dev/null <<'END'
version = 1
[[rule]]
user = "alice"
cgrup = "another/%u"
END
    expect "a broken file is in the journal with its line" within 10 said "60-another.toml:4"
    expect "and in systemctl status" within 10 status_says "error"
    as alice sleep 1000
    expect "the rules that ran before stay in force" in_group $pid another/alice
    expect "cgrulectl check says so too" bash -c 'cgrulectl check; [ $? = 65 ]'
    another 1.2 >/dev/null <<'END'
version = 1
[[rule]]
user = "alice"
cgroup = "mended/%u"
END
    as alice sleep 1000
    expect "a mended file is live" in_group $pid mended/alice
    expect "nothing else was an error" bash -c "! $(declare -f errors); ! errors"

    as alice bash -c 'while :; do sleep 0.05 & sleep 0.05 & wait; done'
    load=$pid before=$(main_pid)
    in_group $load mended/alice
    newer
    expect "an upgrade under load" apt install /tmp/newer.deb
    expect "starts the new daemon" test "$(main_pid)" != "$before" -a "$(active)" = active
    stray() { ps -o pid=,cgroup= -u alice | grep -v "mended/alice"; }
    expect "every process of the load is in its place" bash -c "$(declare -f stray); ! stray"
    expect "a downgrade" apt install "$ours"
    expect "runs as well" active
    expect "every process of the load is in its place then" bash -c "$(declare -f stray); ! stray"

    expect "cgroup-tools installs" dpkg -i /opt/debs/*.deb
    echo 'bob cpu legacy/%u' >/etc/cgrules.conf
    echo 'OPTIONS="-v"' >/etc/default/cgred
    expect "the drop-in installs beside it" apt install "${dropin[0]}"
    expect "its program stands in for the original" bash -c 'cgrulesengd --help | grep -q -- --strict'
    expect "which is kept aside" test -x /usr/sbin/cgrulesengd.libcgroup
    expect "the service is cgred too" systemctl is-active cgred.service
    expect "it runs with the options of its file" bash -c \
        "tr '\\0' ' ' </proc/$(main_pid)/cmdline | grep -q 'cgrulesengd --nodaemon -v'"
    as bob sleep 1000
    expect "legacy rules are live" within 10 grep -q '^0::/legacy/bob$' /proc/$pid/cgroup
    mkdir -p /sys/fs/cgroup/legacy/by-hand
    cgexec -g cpu:legacy/by-hand sleep 1000 &
    started+=($!)
    expect "cgexec still works" within 10 grep -q '^0::/legacy/by-hand$' /proc/$!/cgroup
    leave
    as alice sleep 1000
    in_group $pid mended/alice
    expect "the drop-in goes" apt remove cgruled-cgrulesengd
    expect "and the original is back" bash -c '! /usr/sbin/cgrulesengd --help | grep -q -- --strict'
    expect "the service runs on as cgruled" within 10 bash -c \
        "tr '\\0' ' ' </proc/\$(systemctl show -P MainPID cgruled.service)/cmdline | grep -q '^/usr/sbin/cgruled '"
    rm /etc/cgrules.conf /etc/default/cgred
    leave
    exit 75
fi

since() { systemctl show -P ActiveEnterTimestampMonotonic "$1"; }
expect "the service runs after a reboot" within 20 active
for unit in systemd-user-sessions.service cron.service getty.target; do
    expect "it is ready before $unit" test "$(since cgruled.service)" -lt "$(since $unit)"
done
as alice sleep 1000
expect "rules are live after a reboot" in_group $pid mended/alice
expect "the package goes" apt remove cgruled
expect "what was placed stays there" in_group $pid mended/alice
expect "no unit is left" bash -c '! systemctl is-active cgruled.service cgruled-pool.service'
expect "what the administrator wrote stays" test -e /etc/cgruled/rules.d/70-bob.toml
expect "purge asks nothing" apt purge cgruled
expect "and leaves the administrator's file" test -e /etc/cgruled/rules.d/70-bob.toml
rm -r /etc/cgruled/rules.d/70-bob.toml
apt purge another >/dev/null
apt install "$ours" >/dev/null 2>&1
expect "without it nothing is left" bash -c "apt-get purge -y cgruled >/dev/null 2>&1
    ls -d /etc/cgruled /usr/lib/cgruled /run/cgruled /usr/share/doc/cgruled /etc/systemd/system/*/cgruled* 2>/dev/null
    [ ! -e /etc/cgruled ] && [ ! -e /usr/lib/cgruled ] && [ ! -e /run/cgruled ]"
cd /vm && ./install
