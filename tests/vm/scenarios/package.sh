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
dropins=(/vm/packages/cgruled-cgrulesengd_*.deb)
export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -q -y --allow-downgrades "$@"; }
active() { systemctl is-active "${1:-cgruled.service}"; }
show() { systemctl show -P "$1" "${2:-cgruled.service}"; }
not() { ! "$@"; }

# another VERSION: installs a package of somebody else; its rule file comes from standard input.
another() {
    local tree=/tmp/another
    rm -rf $tree
    mkdir -p $tree/DEBIAN $tree/usr/lib/cgruled/rules.d
    { echo "version = 1" && cat; } >$tree/usr/lib/cgruled/rules.d/60-another.toml
    printf '%s\n' "Package: another" "Version: $1" "Architecture: all" \
        "Maintainer: nobody <nobody@localhost>" "Description: rules of another package" \
        >$tree/DEBIAN/control
    dpkg-deb --root-owner-group -Zgzip --build $tree /tmp/another.deb && dpkg -i /tmp/another.deb
}

# newer: our package with a higher version, as it is after the next build.
newer() {
    rm -rf /tmp/newer
    dpkg-deb -R "$ours" /tmp/newer
    sed -i 's/^Version: .*/&+newer/' /tmp/newer/DEBIAN/control
    dpkg-deb --root-owner-group -Zgzip -z1 --build /tmp/newer /tmp/newer.deb
}

# Complaints of the service and about it since the scenario began.
begun=$(date +%s)
complaints() {
    journalctl -q -b --since "@$begun" -p "$1" -o cat -u cgruled.service | grep -v "60-another.toml" | grep .
}
status_says() { systemctl status cgruled.service | grep -E -- "$1"; }
check_fails() { cgrulectl check; [ $? = 65 ]; }
command_line() { tr '\0' ' ' <"/proc/$(show MainPID)/cmdline"; }
runs_as() { command_line | grep -- "^$1"; }
restarted_from() { [ "$(show MainPID)" != "$1" ] && active; }
strays() { ps -ww -u "$1" -o pid=,stat=,args=,cgroup= | grep -v -e " Z" -e "$2/$1\$"; }
none_outside() { ! strays alice mended && ! strays bob people; }
stayed() { [ -d /proc/$standing ] && is_in $standing "${ground#/sys/fs/cgroup}/$1"; }
no_groups() {
    local groups=("$ground"/*/)
    [ ${#groups[@]} = 0 ]
}
asks() { setpriv --reuid=web --regid=web "$@" cgrulectl status; }
is_ours() { cgrulesengd --help | grep -- --strict; }

installs() {
    expect "the package installs without any configuration" apt install "$ours"
    expect "the service runs after that" active
    expect "the status is said" status_says "0 rules from "
    expect "the samples move nothing" no_groups
    expect "nothing is complained of" not complaints warning
    for unit in cgruled.service cgruled-groups.service cgruled-pool.service cgruled.slice; do
        expect "verify $unit" test -z "$(systemd-analyze --man=no verify $unit 2>&1 | grep cgruled)"
    done
    expect "nobody makes groups at boot unasked" not systemctl is-enabled cgruled-groups.service
    expect "cgexec finds the socket of cgred" test -S /run/cgred.socket
    expect "cgrulectl asks" cgrulectl status
    expect "so do members of the group" asks --groups=cgruled
    expect "others may not" not asks --clear-groups
}

takes_rules_of_others() {
    as alice sleep 1000
    standing=$pid
    another 1.0 >/dev/null <<'END_OF_RULES'
[[rule]]
user = "alice"
cgroup = "another/%u"
END_OF_RULES
    expect "a rule file of another package is live without a script" in_group $standing another/alice
    cat >/etc/cgruled/rules.d/70-bob.toml <<'END_OF_RULES'
version = 1
[[rule]]
user = "bob"
cgroup = "people/bob"
END_OF_RULES
    as bob sleep 1000
    expect "so is one of the administrator" in_group $pid people/bob

    another 1.1 >/dev/null <<'END_OF_RULES'
[[rule]]
user = "alice"
cgrup = "another/%u"
END_OF_RULES
    expect "a broken file is in the journal with its line" within 10 said "60-another.toml:4"
    expect "and in systemctl status" within 10 status_says "60-another.toml:4"
    as alice sleep 1000
    expect "the rules that ran before stay in force" in_group $pid another/alice
    expect "cgrulectl check says so too" check_fails
    systemctl restart cgruled.service
    expect "the service starts with it" active
    expect "and counts it" within 10 status_says "[1-9] error"
    as bob sleep 1000
    expect "rules of others are in force" in_group $pid people/bob
    another 1.2 >/dev/null <<'END_OF_RULES'
[[rule]]
user = "alice"
cgroup = "mended/%u"
END_OF_RULES
    as alice sleep 1000
    expect "a mended file is live" in_group $pid mended/alice
    expect "it takes along who was placed" in_group $standing mended/alice
    expect "nothing else was an error" not complaints err
}

# after WHAT COMMAND...: under load, nobody is left outside, and who was placed stays.
after() {
    local before
    before=$(show MainPID)
    expect "$@"
    expect "$1: another daemon runs" restarted_from "$before"
    expect "$1: all are placed" within 30 none_outside
    expect "$1: placed processes stay" stayed mended/alice
}

is_upgraded_under_load() {
    newer >/dev/null
    (while :; do
        as bob sleep 3
        as alice bash -c 'sleep 2 & sleep 3'
        sleep 0.2
    done) &
    local load=$!
    after "upgrade" apt install /tmp/newer.deb
    after "downgrade" apt install "$ours"
    kill $load
    expect "upgrades are no error" not complaints err
}

gets_out_of_the_way_of_cgroup_tools() {
    expect "cgroup-tools installs" dpkg -i /opt/debs/*.deb
    echo 'web cpu legacy/%u' >/etc/cgrules.conf
    mkdir -p /etc/sysconfig
    printf '%s\n' 'SOCKET_GROUP="cgred"' 'LOG_FILE="/var/log/cgred.log"' >/etc/sysconfig/cgred.conf
    echo 'OPTIONS="-v"' >/etc/default/cgred
    expect "the drop-in installs beside it" apt install "${dropins[0]}"
    expect "its program stands in for the original" is_ours
    expect "which is kept aside" test -x /usr/sbin/cgrulesengd.libcgroup
    expect "the service is cgred too" active cgred.service
    expect "it runs with the options of its files" runs_as \
        "/usr/sbin/cgrulesengd --nodaemon --logfile=/var/log/cgred.log --socket-group=cgred -v"
    expect "the log is where they say" within 10 test -s /var/log/cgred.log
    expect "the socket is their group's" test "$(stat -c %G /run/cgred.socket)" = cgred
    as web sleep 1000
    expect "legacy rules are live" within 10 grep -q '^0::/legacy/web$' /proc/$pid/cgroup
    mkdir -p /sys/fs/cgroup/legacy/by-hand
    cgexec -g cpu:legacy/by-hand sleep 1000 &
    started+=($!)
    expect "cgexec still works" within 10 grep -q '^0::/legacy/by-hand$' /proc/$!/cgroup
    disown
    expect "placed processes stay with the drop-in" stayed mended/alice
    expect "the drop-in goes" apt remove cgruled-cgrulesengd
    expect "and the original is back" not is_ours
    expect "the service runs on as cgruled" within 10 runs_as "/usr/sbin/cgruled "
    expect "the drop-in was no error" not complaints err
    rm /etc/cgrules.conf /etc/default/cgred /etc/sysconfig/cgred.conf /var/log/cgred.log
}

goes() {
    expect "the package goes" apt remove cgruled
    expect "what was placed stays there" stayed mended/alice
    expect "no unit is left" not active cgruled.service cgruled-pool.service
    expect "purge asks nothing" apt purge cgruled
    expect "it leaves the administrator's file" test -e /etc/cgruled/rules.d/70-bob.toml
    leave
    rm /etc/cgruled/rules.d/70-bob.toml
    dpkg -P another cgruled-cgrulesengd cgroup-tools >/dev/null
    apt install "$ours" >/dev/null
    apt purge cgruled >/dev/null
    expect "without it nothing is left" nothing_left
}
nothing_left() {
    local left=(/etc/cgruled* /usr/lib/cgruled* /run/cgr* /usr/share/doc/cgruled* /var/log/cgruled* "$ground"*
        /var/lib/systemd/deb-systemd-helper-enabled/*/cgruled* /etc/systemd/system/*/cgruled*)
    left+=($(systemctl list-units --all --plain --no-legend 'cgruled*'))
    [ ${#left[@]} = 0 ] || { echo "${left[@]}" && false; }
}

if [ "${1:-}" != rebooted ]; then
    # Other scenarios install it too, and leave rules.
    dpkg -P cgruled >/dev/null
    rm -rf /etc/cgruled /run/cgruled /var/log/cgruled "$ground"/*/
    installs
    takes_rules_of_others
    is_upgraded_under_load
    gets_out_of_the_way_of_cgroup_tools
    exit 75
fi

expect "the service runs after a reboot" active
ready=$(show ActiveEnterTimestampMonotonic)
for unit in systemd-user-sessions.service cron.service getty.target; do
    expect "it is ready before $unit begins" test "$(show InactiveExitTimestampMonotonic $unit)" -ge "$ready"
done
as alice sleep 1000
standing=$pid
expect "rules are live after a reboot" in_group $pid mended/alice
begun=0
expect "the boot was no error" not complaints warning
goes
cd /vm && ./install
