# Containers: those that root created keep their processes, those of a user stay within
# the limit of the user.
. /vm/scenario.bash

settings <<'CGRULED'
root = "auto"
CGRULED
rules <<'CGRULED'
[[rule]]
user = "1000-59999"
cgroup = "people/%u"
leave_units = true
CGRULED
daemon || exit

# A container image with only busybox.
box=/var/tmp/box
mkdir -p $box/{bin,dev,proc,sys,tmp,etc,run,usr}
cp "$(command -v busybox)" $box/bin/
for name in sh sleep head cat mknod id true; do ln -s busybox $box/bin/$name; done
echo 'root:x:0:0::/:/bin/sh
app:x:1000:1000::/:/bin/sh' >$box/etc/passwd
echo 'app:x:1000:' >$box/etc/group
tar -C $box -cf /var/tmp/box.tar .
disk=$(cat /sys/block/vda/dev)

# holds NUMBER LIMIT-FILE: the process `sleep NUMBER` is in the cgroup of the container, not in the
# pool, and that cgroup has its limit.
holds() { # holds NUMBER LIMIT-FILE
    local pid group
    pid=$(pgrep -x -f "sleep $1" | head -1)
    [ -n "$pid" ] || { echo "sleep $1 does not run" && return 1; }
    group=$(group_of "$pid")
    case $group in *cgruled-pool*) echo "it is in $group" && return 1 ;; esac
    while [ -n "$group" ]; do
        grep -qx 67108864 "/sys/fs/cgroup$group/memory.max" 2>/dev/null && return
        group=${group%/*}
    done
    echo "none of its cgroups has the limit"
    return 1
}
filtered() { # filtered COMMAND...: the container cannot read a device of the host
    "$@" sh -c "cat /vda >/dev/null" 2>&1 | grep -q "not permitted"
}

for engine in cgroupfs systemd; do
    podman() { command podman --cgroup-manager=$engine --events-backend=none "$@"; }
    command podman image exists localhost/box || command podman import -q /var/tmp/box.tar box
    number=2$(( ${#engine} ))
    expect "podman, $engine: a container starts" podman run -d --name "c$engine" --network none --memory 64m \
        --cap-add mknod --pids-limit 0 box sh -c "mknod -m 666 /vda b ${disk/:/ }; exec sleep 1$number"
    expect "a user's process starts" podman exec -d --user 1000 "c$engine" sleep 3$number
    within 20 pgrep -x -f "sleep 3$number"
    sleep 3
    expect "its process keeps the limit" holds 3$number
    expect "and the device filter" filtered podman exec --user 1000 "c$engine"
    expect "exec" podman exec --user 1000 "c$engine" true
    expect "pause" podman pause "c$engine"
    expect "unpause" podman unpause "c$engine"
    systemctl reload cgruled.service
    sleep 2
    expect "after a reload too" holds 3$number
    podman rm -f -t 0 "c$engine" >/dev/null
done

systemd-run -q --unit=nspawned -p Delegate=yes -p MemoryMax=64M systemd-nspawn -q --register=no --keep-unit \
    -D $box --as-pid2 --user=app sleep 4000
within 20 pgrep -x -f "sleep 4000"
sleep 3
expect "systemd-nspawn: the process keeps the limit" holds 4000
systemctl stop nspawned.service
expect "they are counted" test "$(counter kept_in_container)" -gt 0

# Rootless containers under the rules of the README: within the slice of the user.
rules <<'CGRULED'
[unit."user-%U.slice"]
users = ["1000-59999"]
pids.max = 300

[[rule]]
user = "1000-59999"
cgroup = "people/%u"
leave_units = true
CGRULED
systemctl reload cgruled.service
loginctl enable-linger alice
id=$(id -u alice)
within 30 systemctl is-active "user@$id.service"
service() { (cd /home/alice && mine alice systemd-run -q --user --wait --pipe "$@"); }
expect "alice imports an image" service podman --storage-driver=vfs import -q /var/tmp/box.tar box
expect "alice starts a container" service -p KillMode=none podman --storage-driver=vfs run -d --name own \
    --network none --memory 64m box sleep 5000
within 30 pgrep -x -f "sleep 5000"
sleep 3
place=$(group_of "$(pgrep -x -f 'sleep 5000')")
expect "it is in her slice" grep -q "^/user.slice/user-$id.slice/" <<<"$place"
expect "its limit is active" holds 5000
expect "so is that of her slice" grep -qx 300 "/sys/fs/cgroup/user.slice/user-$id.slice/pids.max"
expect "exec works" service podman --storage-driver=vfs exec own true
expect "pause works" service podman --storage-driver=vfs pause own
expect "unpause works" service podman --storage-driver=vfs unpause own
service podman --storage-driver=vfs rm -f -t 0 own >/dev/null
loginctl disable-linger alice
