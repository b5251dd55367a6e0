# The life cycle of the packages: installation, rules of another package, invalid and fixed, upgrade
# under load, downgrade, the drop-in beside cgroup-tools, reboot, removal, purge.
. /vm/scenario.bash
shopt -s nullglob

packages=(/vm/packages/cgruled_*.deb)
if [ ${#packages[@]} = 0 ]; then
    say "skipped: no packages were given (CGRULED_VM_PACKAGES)"
    exit 0
fi
ours=${packages[0]}
dropins=(/vm/packages/cgruled-cgrulesengd_*.deb)
export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -q -y --allow-downgrades "$@"; }
active() { systemctl is-active "${1:-cgruled.service}"; }
show() { systemctl show -P "$1" "${2:-cgruled.service}"; }
not() { ! "$@"; }

# another VERSION: installs a foreign package; its rule file comes from standard input.
another() {
    local tree=/tmp/another
    rm -rf $tree
    mkdir -p $tree/DEBIAN $tree/usr/lib/cgruled/rules.d
    { echo "version = 1" && cat; } >$tree/usr/lib/cgruled/rules.d/60-another.toml
    printf '%s\n' "Package: another" "Version: $1" "Architecture: all" \
        "Maintainer: nobody <nobody@localhost>" "Description: rules of another package" \
        >$tree/DEBIAN/control
    dpkg-deb --root-owner-group -Znone --build $tree /tmp/another.deb && dpkg -i /tmp/another.deb
}

# newer: builds our package with a higher version, as after the next build: another program, another unit.
newer() {
    rm -rf /tmp/newer
    dpkg-deb -R "$ours" /tmp/newer
    # The version is replaced by one of the same length.
    LC_ALL=C sed -i "s/$version/9${version#?}/g" /tmp/newer/usr/sbin/cgruled
    sed -i 's/^Description=.*/Description=The next build/' /tmp/newer/lib/systemd/system/cgruled.service
    sed -i 's/^Version: .*/&+newer/' /tmp/newer/DEBIAN/control
    dpkg-deb --root-owner-group -Znone --build /tmp/newer /tmp/newer.deb
}

# complaints PRIORITY: prints diagnostics of the service and about it since the scenario began.
begun=$(date +%s)
complaints() {
    # An entry has several lines, but one in JSON. Errors of the rule file, their number and the reload that fails
    # because of them are intended.
    journalctl -q -b --since "@$begun" -p "$1" -o json -u cgruled.service |
        grep -v -e 60-another.toml -e 'the rules have [0-9]* new error' -e 'Reload failed for cgruled.service' | grep .
}
status_says() { systemctl status cgruled.service | grep -E -- "$1"; }
check_fails() { cgrulectl check; [ $? = 65 ]; }
command_line() { tr '\0' ' ' <"/proc/$(show MainPID)/cmdline"; }
# The unit has no CAP_IPC_LOCK, but LimitMEMLOCK=.
locked_kib() { sed -n 's/^VmLck:[[:space:]]*\([0-9]*\) kB$/\1/p' "/proc/$(show MainPID)/status"; }
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
    expect "the status is reported" status_says "0 rules from "
    expect "its code is locked in memory" test "$(locked_kib)" -ge 1024
    expect "the samples move nothing" no_groups
    expect "no warning is logged" not complaints warning
    for unit in cgruled.service cgruled-groups.service cgruled-pool.service cgruled.slice; do
        expect "verify $unit" verifies $unit
    done
    expect "cgruled-groups.service is not enabled by default" not systemctl is-enabled cgruled-groups.service
    expect "cgexec finds the socket of cgred" test -S /run/cgred.socket
    expect "root may query" cgrulectl status
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
    expect "a rule file of another package becomes active without a script" in_group $standing another/alice
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
    expect "an error is in the journal with its line" within 10 said "60-another.toml:4"
    expect "and in systemctl status" within 10 status_says "60-another.toml:4"
    as alice sleep 1000
    expect "the last valid version stays active" in_group $pid another/alice
    cat >/etc/cgruled/rules.d/40-third.toml <<'END_OF_RULES'
version = 1
[[rule]]
user = "bob"
cgroup = "third/bob"
END_OF_RULES
    as bob sleep 1000
    expect "a third file that is added meanwhile is active" in_group $pid third/bob
    expect "the status reports it" within 10 status_says "1 file kept at last valid version"
    rm /etc/cgruled/rules.d/40-third.toml
    as bob sleep 1000
    expect "a removed file is inactive" in_group $pid people/bob
    expect "cgrulectl check reports it too" check_fails
    systemctl restart cgruled.service
    expect "the service starts with it" active
    expect "and counts it" within 10 status_says "[1-9] error"
    as bob sleep 1000
    expect "rules of other files are active" in_group $pid people/bob
    another 1.2 >/dev/null <<'END_OF_RULES'
[[rule]]
user = "alice"
cgroup = "mended/%u"
END_OF_RULES
    as alice sleep 1000
    expect "a fixed file is active" in_group $pid mended/alice
    expect "it moves placed processes" in_group $standing mended/alice
    expect "nothing else was an error" not complaints err
}

# after WHAT COMMAND...: under load, no process is left outside, and placed processes stay.
after() {
    local before
    before=$(show MainPID)
    expect "$@"
    expect "$1: another daemon runs" restarted_from "$before"
    expect "$1: all are placed" within 30 none_outside
    expect "$1: placed processes stay" stayed mended/alice
}

# runs_version VERSION: the file and the running daemon have this version.
runs_version() {
    [ "$(cgruled --version)" = "cgruled $1" ] && cmp "/proc/$(show MainPID)/exe" /usr/sbin/cgruled
}

is_upgraded_under_load() {
    local version description
    version=$(cgruled --version | cut -d ' ' -f 2)
    description=$(show Description)
    newer >/dev/null
    (while :; do
        as bob sleep 3
        as alice bash -c 'sleep 2 & sleep 3'
        sleep 0.2
    done) &
    local load=$!
    after "upgrade" apt install /tmp/newer.deb
    expect "the next program is installed" runs_version "9${version#?}"
    expect "the next unit is active" test "$(show Description)" = "The next build"
    after "downgrade" apt install "$ours"
    expect "the previous program is installed" runs_version "$version"
    expect "the previous unit is active" test "$(show Description)" = "$description"
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
    expect "its program replaces that of cgroup-tools" is_ours
    expect "verify cgruled.service with the drop-in" verifies cgruled.service
    expect "its exposure is 2.8 at most" systemd-analyze security --threshold=28 cgruled.service
    expect "which is diverted" test -x /usr/sbin/cgrulesengd.libcgroup
    expect "the service is cgred too" active cgred.service
    expect "it runs with the options of its files" runs_as \
        "/usr/sbin/cgrulesengd --nodaemon --logfile=/var/log/cgred.log --socket-group=cgred -v"
    expect "the log is at the configured path" within 10 test -s /var/log/cgred.log
    expect "the socket has the configured group" test "$(stat -c %G /run/cgred.socket)" = cgred
    as web sleep 1000
    expect "legacy rules are active" within 10 grep -q '^0::/legacy/web$' /proc/$pid/cgroup
    mkdir -p /sys/fs/cgroup/legacy/by-hand
    cgexec -g cpu:legacy/by-hand sleep 1000 &
    started+=($!)
    expect "cgexec still works" within 10 grep -q '^0::/legacy/by-hand$' /proc/$!/cgroup
    disown
    expect "placed processes stay with the drop-in" stayed mended/alice
    expect "the drop-in is removed" apt remove cgruled-cgrulesengd
    expect "and the program of cgroup-tools is back" not is_ours
    expect "the service runs on as cgruled" within 10 runs_as "/usr/sbin/cgruled "
    expect "the drop-in was no error" not complaints err
    rm /etc/cgrules.conf /etc/default/cgred /etc/sysconfig/cgred.conf /var/log/cgred.log
}

ended_with() { # ended_with STATUS: exited with STATUS and was not restarted
    sleep 3
    [ "$(show ExecMainStatus) $(show NRestarts)" = "$1 0" ]
}
# As in doc/migration.md: ours waits while cgrulesengd of libcgroup runs.
takes_over_from_the_original() {
    local original
    systemctl stop cgruled.service
    mkdir -p /etc/cgconfig.d
    touch /etc/cgrules.conf /etc/cgconfig.conf
    /usr/sbin/cgrulesengd --nodaemon >/dev/null 2>&1 &
    original=$!
    within 20 test -S /run/cgred.socket
    systemctl start cgruled.service
    expect "ours does not run beside cgrulesengd, and is not restarted" ended_with 78
    expect "a masked service does not make the installation fail" masked_install
    expect "and does not run" not active cgruled.service
    systemctl unmask cgruled.service
    expect "a skipped service is installed without an error" skipped_install
    expect "and does not run either" not active cgruled.service
    kill $original
    wait $original
    rm -r /etc/systemd/system/cgruled.service.d
    systemctl daemon-reload
    expect "it takes over" systemctl restart cgruled.service
    expect "and is enabled" systemctl is-enabled cgruled.service
    expect "placed processes stayed" stayed mended/alice
    rm -r /etc/cgrules.conf /etc/cgconfig.conf /etc/cgconfig.d
}
masked_install() {
    systemctl mask cgruled.service && dpkg -r cgruled && apt install "$ours"
}
skipped_install() {
    local output
    dpkg -P cgruled
    mkdir -p /etc/systemd/system/cgruled.service.d
    printf '[Unit]\nConditionPathExists=!/\n' >/etc/systemd/system/cgruled.service.d/skip.conf
    output=$(apt install "$ours" 2>&1) && ! grep -iE 'error|fail|masked' <<<"$output"
}

goes() {
    expect "the package is removed" apt remove cgruled
    expect "placed processes stay" stayed mended/alice
    expect "cgruled.service is stopped" not active cgruled.service
    expect "cgruled-pool.service is stopped" not active cgruled-pool.service
    expect "no maintainer script prompts" asks_nothing
    expect "purge does not prompt" env -u DEBIAN_FRONTEND dpkg -P cgruled
    expect "it keeps the file of the administrator" test -e /etc/cgruled/rules.d/70-bob.toml
    leave
    rm /etc/cgruled/rules.d/70-bob.toml
    dpkg -P another cgruled-cgrulesengd cgroup-tools >/dev/null
    apt install "$ours" >/dev/null
    # As the administrator does, without deb-systemd-helper.
    rm -rf /var/lib/systemd/deb-systemd-helper-enabled/*cgruled* \
        /var/lib/systemd/deb-systemd-helper-enabled/*/cgruled*
    systemctl -q enable cgruled.service cgruled-groups.service
    apt purge cgruled >/dev/null
    expect "without that file nothing is left" nothing_left
}
# asks_nothing: the maintainer scripts that remain after the removal, and those of the
# drop-in, do not prompt.
asks_nothing() {
    local files=(/var/lib/dpkg/info/cgruled*)
    [ ${#files[@]} -gt 1 ] && ! grep -lE "^Template:|debconf|^[^#]*\bread\b" "${files[@]}"
}
nothing_left() {
    local left=(/etc/cgruled* /usr/lib/cgruled* /run/cgr* /usr/share/doc/cgruled* /var/log/cgruled* /var/lib/cgruled*
        "$ground"*
        /var/lib/systemd/deb-systemd-helper-enabled/*/cgruled* /etc/systemd/system/*/cgruled*)
    left+=($(systemctl list-units --all --plain --no-legend 'cgruled*'))
    [ ${#left[@]} = 0 ] || { echo "${left[@]}" && ls -A /run/cgruled && false; }
}

if [ "${1:-}" != rebooted ]; then
    # Other scenarios install it too, and leave rules.
    dpkg -P cgruled >/dev/null
    rm -rf /etc/cgruled /run/cgruled /var/log/cgruled "$ground"/*/
    installs
    takes_rules_of_others
    is_upgraded_under_load
    gets_out_of_the_way_of_cgroup_tools
    takes_over_from_the_original
    exit 75
fi

expect "the service runs after a reboot" active
ready=$(show ActiveEnterTimestampMonotonic)
for unit in systemd-user-sessions.service cron.service getty.target; do
    expect "it is ready before $unit begins" test "$(show InactiveExitTimestampMonotonic $unit)" -ge "$ready"
done
as alice sleep 1000
standing=$pid
expect "rules are active after a reboot" in_group $pid mended/alice
begun=0
expect "the boot was no error" not complaints warning
goes
cd /vm && ./install
