#!/bin/bash
# The first process under user-mode-linux: the machine's own root, read-only, with an overlay in memory; then the job.
# On the kernel's command line: PYTHON, MODULES (the folder of the kernel's modules), FOLDER, and JOB, a Python module.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

load() { # modules and what they depend on, without needing the package kmod
    "$PYTHON" - "$MODULES" "$@" <<'PYTHON'
import ctypes, os, pathlib, sys
folder, *names = sys.argv[1:]
dependencies = dict(line.split(":") for line in pathlib.Path(folder, "modules.dep").read_text().splitlines())
paths = {pathlib.Path(path).name.split(".")[0].replace("-", "_"): path for path in dependencies}
for name in names:
    if name in paths:
        for path in (*reversed(dependencies[paths[name]].split()), paths[name]):
            FINIT_MODULE = 313
            ctypes.CDLL(None).syscall(FINIT_MODULE, os.open(f"{folder}/{path}", os.O_RDONLY), b"", 0)
PYTHON
}

mount -t proc proc /proc
if [ -z "$STAGE" ]; then
    mount -t tmpfs tmpfs /run
    load overlay
    mkdir -p /run/layer/upper /run/layer/work /run/root
    mount -t overlay overlay -o lowerdir=/,upperdir=/run/layer/upper,workdir=/run/layer/work /run/root &&
        STAGE=2 exec chroot /run/root /bin/bash "$0"
    echo "no overlay"
else
    mount -t sysfs sys /sys
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /dev/shm
    load sch_netem sch_htb cls_u32 bridge veth af_packet
    ip link set lo up
    cd "$FOLDER" && "$PYTHON" -m "$JOB"
    echo "JOB ENDED $?"
fi
echo o >/proc/sysrq-trigger
sleep 10
