# The hardened unit has mounts of its own. Rules by executable refer to the files of the host nevertheless.
. /vm/scenario.bash

settings <<'END'
root = "auto"
END
rules <<'END'
[[rule]]
user = "alice"
exe = "/usr/bin/sleep"
cgroup = "path"
[[rule]]
user = "alice"
exe = ["/tmp/job.sh", "home.sh", "relative.sh"]
cgroup = "script"
[[rule]]
user = "alice"
exe = "link"
cgroup = "link"
END
daemon || exit
as alice sleep 1000
expect "a path refers to the host" in_group $pid path
printf '#!/bin/bash\nread <> <(:)\n' | tee /tmp/job.sh /tmp/relative.sh >/home/alice/home.sh
cp /usr/bin/tail /tmp/tail && ln -s tail /tmp/link
chmod 755 /tmp/*.sh /home/alice/home.sh
as alice /tmp/job.sh
expect "a script in /tmp matches" in_group $pid script
as alice /home/alice/home.sh
expect "a script in /home matches" in_group $pid script
cd /tmp
as alice ./relative.sh
expect "a script without a directory matches" in_group $pid script
as alice /tmp/link -f /dev/null
expect "a link matches" in_group $pid link
as alice unshare --user --mount sleep 1000
expect "the same file in other mounts matches" in_group $pid path
as alice unshare --user --map-root-user --mount sh -c 'mount --bind /tmp/tail /usr/bin/sleep; exec sleep -f /dev/null'
sleep 1
expect "another file at the path does not match" is_in $pid /outside
