# Containers under a rule that moves UID 1000: processes in those that root created keep their cgroup, with its
# limits, device filter and freezer; those that a user created stay within the limit of the user.
. /vm/scenario.bash

settings <<'END'
root = "auto"
END
moving='[[rule]]
user = "1000-59999"
cgroup = "people/%u"
leave_units = true
[cgroup."people/%u"]
pids.max = 250'
rules <<<"$moving"
daemon || exit

# A root directory with only busybox, and the disk of the host as a device, which only the filter protects.
box=/var/tmp/box
mkdir -p $box/{bin,dev,etc,proc,root,run,sys,tmp,usr,var}
cp "$(command -v busybox)" $box/bin/
for name in sh cat grep head mknod sleep su true; do ln -s busybox $box/bin/$name; done
echo "ID=box" >$box/etc/os-release
printf '%s\n' root:x:0:0::/:/bin/sh app:x:1000:1000::/:/bin/sh >$box/etc/passwd
printf '%s\n' root:x:0: app:x:1000: >$box/etc/group
tar -C $box -cf /var/tmp/box.tar .
disk=$(cat /sys/block/vda/dev)
mknod -m 666 $box/vda b ${disk/:/ }
# Succeeds in a container whose filter denies the disk.
is_denied='head -c 4 /vda 2>&1 | grep -q "not permitted"'
expect "on the host UID 1000 can read the disk by this file" \
    setpriv --reuid=1000 --regid=1000 --clear-groups dd if=$box/vda of=/dev/null count=1

# place_of NUMBER: prints the cgroup of the process `sleep NUMBER`.
place_of() {
    local pid
    pid=$(pgrep -o -f "^(/bin/)?sleep $1\$") || { echo "sleep $1 does not run" && return 1; }
    group_of "$pid"
}
# starts NUMBER: waits until `sleep NUMBER` runs, and the daemon has evaluated it.
starts() { within 60 place_of "$1" && { cgrulectl place "$(pgrep -o -f "^(/bin/)?sleep $1\$")" || true; }; }
# is_below NUMBER BEGINNING: the cgroup of `sleep NUMBER` begins with this.
is_below() {
    local group
    group=$(place_of "$1") && [[ $group == "$2"* ]] || { echo "$group" && return 1; }
}
# has_limit NUMBER FILE VALUE: the cgroup of `sleep NUMBER` or one above it has this limit.
has_limit() {
    local group
    group=$(place_of "$1") || { echo "$group" && return 1; }
    while [ -n "$group" ]; do
        ! grep -qx "$3" "/sys/fs/cgroup$group/$2" 2>/dev/null || return 0
        group=${group%/*}
    done
    echo "no $2 = $3 from $(place_of "$1") upwards" && return 1
}
is_frozen() { grep "^frozen $2" "/sys/fs/cgroup$(place_of "$1")/cgroup.events"; }

# keeps NAME NUMBER: checks the running container NAME, in which `sleep NUMBER` has UID 1000. The functions
# `inside` (executes a command in it as UID 1000), `freeze` and `thaw` are those of its engine.
keeps() {
    expect "$1: a process of UID 1000 starts" starts "$2"
    expect "$1: it keeps the memory limit" has_limit "$2" memory.max 67108864
    expect "$1: exec works, with the device filter" inside sh -c "$is_denied"
    expect "$1: freeze" freeze
    expect "$1: it is frozen" within 10 is_frozen "$2" 1
    expect "$1: thaw" thaw
    expect "$1: it is thawed" within 10 is_frozen "$2" 0
    expect "$1: a reload" cgrulectl reload
    expect "$1: after it the limit is kept too" has_limit "$2" memory.max 67108864
}

podman() { command podman --cgroup-manager=$engine --events-backend=none "$@"; }
inside() { podman exec --user 1000 "c$engine" "$@"; }
freeze() { podman pause "c$engine"; }
thaw() { podman unpause "c$engine"; }
number=3000
engine=cgroupfs podman import -q /var/tmp/box.tar box >/dev/null
for engine in cgroupfs systemd; do
    number=$((number + 1))
    expect "podman, $engine: a container starts" podman run -d --name "c$engine" --network none --memory 64m \
        --cap-add mknod box sh -c "mknod -m 666 /vda b ${disk/:/ }; exec sleep 1000"
    expect "podman, $engine: exec" podman exec -d --user 1000 "c$engine" sleep $number
    keeps "podman, $engine" $number
done

# Rules by container, here with the name that podman gives it. The rule before the usual ones moves it out.
by_container='[[rule]]
name = "one container"
container = ["podman:csystemd", "lxc:box", "nspawn:box"]
containers = ["podman:csystemd", "lxc:box", "nspawn:box"]
user = 1000
cgroup = "boxes/%u"
leave_units = true
priority = 10
'
# moved_out TEXT NUMBER NAME: a rule by container moves the process `sleep NUMBER` of UID 1000, and it keeps the rule.
boxes=${ground#/sys/fs/cgroup}/boxes
moved_out() {
    # In a directory of its own: in the cgroup of the rule, explain does not know the container any more.
    mkdir -p /root/boxes.d
    printf 'version = 1\n%s' "$by_container" >/root/boxes.d/50-boxes.toml
    expect "$1: explain names the container" grep -q "^  container [a-z]*:$3" \
        <(cgrulectl explain --rules /root/boxes.d "$(pgrep -o -f "^(/bin/)?sleep $2\$")")
    rules <<<"$by_container$moving"
    cgrulectl reload >/dev/null
    expect "$1: a rule by its name moves it" within 10 is_below "$2" "$boxes/"
    cgrulectl reload >/dev/null
    expect "$1: after a reload it keeps the rule" is_below "$2" "$boxes/"
    rules <<<"$moving"
    cgrulectl reload >/dev/null
}
moved_out "podman" 3002 csystemd

mkdir -p /var/lib/lxc/box
cat >/var/lib/lxc/box/config <<END
lxc.rootfs.path = dir:$box
lxc.uts.name = box
lxc.net.0.type = empty
lxc.apparmor.profile = unconfined
lxc.mount.auto = proc:mixed sys:ro
lxc.init.cmd = /bin/sleep 1000
lxc.cgroup2.memory.max = 64M
lxc.cgroup2.devices.deny = a
lxc.cgroup2.devices.allow = c 1:* rwm
END
inside() { lxc-attach -n box -u 1000 -g 1000 -- "/bin/$1" "${@:2}"; }
freeze() { lxc-freeze -n box; }
thaw() { lxc-unfreeze -n box; }
expect "LXC: a container starts" lxc-start -n box
inside sleep 3010 </dev/null >/dev/null 2>&1 &
keeps "LXC" 3010
moved_out "LXC" 3010 box
lxc-stop -k -n box

# systemd-nspawn, in the cgroup of its service and in a scope that systemd-machined registers.
inside() { # by root, who enters the cgroup before the namespaces, as engines do
    local group
    group=$(place_of $number) || return
    (echo $BASHPID >"/sys/fs/cgroup$group/cgroup.procs" &&
        exec nsenter -t "$(pgrep -o -f "^sleep $number\$")" -a -S 1000 -G 1000 "/bin/$1" "${@:2}")
}
freeze() { systemctl freeze "$unit"; }
thaw() { systemctl thaw "$unit"; }
nspawn() { # nspawn SERVICE OPTION...: options of systemd-run, then those of systemd-nspawn after --
    local service=$1
    shift
    systemd-run -q --unit="$service" "$@" -q -D $box --as-pid2 su -s /bin/sh app -c "exec sleep $number"
}
number=3020 unit=kept.service
nspawn kept -p Delegate=yes -p MemoryMax=64M -p DevicePolicy=closed -- systemd-nspawn --register=no --keep-unit
keeps "nspawn in a service" $number
systemctl stop kept.service
number=3021 unit=machine-box.scope
nspawn registered -- systemd-nspawn -M box --property=MemoryMax=64M
keeps "nspawn in a scope" $number
moved_out "nspawn" $number box
systemctl stop registered.service
expect "they are counted" test "$(counter kept_in_container)" -gt 0

# Rootless containers.
loginctl enable-linger alice
id=$(id -u alice)
within 60 systemctl is-active "user@$id.service"
podman() { # by alice
    (cd /home/alice && mine alice systemd-run -q --user --wait --pipe -p KillMode=none \
        podman --cgroup-manager=$engine --storage-driver=vfs --events-backend=none "$@")
}
start() { # start NAME NUMBER: a container, and a process in it of a subordinate UID
    podman run -d --name "$1" --network none --memory 64m box sleep "$2"
}

# With the limit on her slice as in the README: without restrictions.
rules <<<"[unit.\"user-%U.slice\"]
users = [\"1000-59999\"]
pids.max = 300
$moving"
cgrulectl reload >/dev/null
engine=systemd
expect "alice imports an image" podman import -q /var/tmp/box.tar box
expect "alice starts a container" start own 3030
inside() { podman exec --user 1000 own "$@"; }
inside sleep 3031 >/dev/null 2>&1 &
for number in 3030 3031; do
    expect "alice: sleep $number starts" starts $number
    expect "alice: sleep $number is in her slice" is_below $number "/user.slice/user-$id.slice/"
    expect "alice: sleep $number has the limit of the container" has_limit $number memory.max 67108864
    expect "alice: sleep $number has the limit of the slice" has_limit $number pids.max 300
done
# In a directory of its own, because the daemon must not move these processes.
echo 'version = 1
[[rule]]
container = "podman@alice:*"
cgroup = "rootless/alice"' >/root/boxes.d/50-boxes.toml
expect "alice: explain names her container" grep -q "^  container podman@alice:" \
    <(cgrulectl explain --rules /root/boxes.d "$(pgrep -o -f "^(/bin/)?sleep 3031\$")")
expect "alice: pause" podman pause own
expect "alice: it is frozen" within 10 is_frozen 3031 1
expect "alice: unpause" podman unpause own
expect "alice: it is thawed" within 10 is_frozen 3031 0
podman kill own >/dev/null

# With a moving rule alone: in the cgroup of the rule. exec works with cgroupfs only, see cgruled-rules(5), and with
# systemd a start fails when the container is moved out of its scope before crun looks for the scope (3 of 12).
start_in_turns() { # start_in_turns NAME NUMBER
    local turn
    for turn in 1 2 3 4 5 6 7 8; do
        start "$1$turn" "$2" 2>/var/tmp/error && return
        grep -q "crun: .*No such file or directory" /var/tmp/error || break
        say "$(grep crun: /var/tmp/error)"
    done
    cat /var/tmp/error
    return 1
}
rules <<<"$moving"
cgrulectl reload >/dev/null
expect "check reports the effects of a moving rule" grep -q "rootless containers lose podman exec" <(cgrulectl check 2>/dev/null)
people=${ground#/sys/fs/cgroup}/people/alice
for engine in systemd cgroupfs; do
    number=$((number + 10))
    case $engine in
    systemd) expect "alice, moved, $engine: a container starts" start_in_turns movedsystemd $number ;;
    cgroupfs) expect "alice, moved, $engine: a container starts" start movedcgroupfs $number ;;
    esac
    expect "alice, moved, $engine: it runs" starts $number
    expect "alice, moved, $engine: it has her limit" is_below $number "$people"
done
inside() { podman exec --user 1000 movedcgroupfs "$@"; }
expect "alice, moved, cgroupfs: exec" inside true
inside sleep 3060 >/dev/null 2>&1 &
expect "alice, moved, cgroupfs: a process of a subordinate UID starts" starts 3060
expect "alice, moved, cgroupfs: it has her limit" is_below 3060 "$people"

pkill -KILL -x sleep
loginctl disable-linger alice
