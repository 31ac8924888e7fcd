#!/usr/bin/env bash
# A Slurm cluster of this machine alone, with two GPUs that are none (/dev/null and /dev/zero), for
# tests. Debian: apt-get install slurm-wlm munge. As root:
#   bash tests/one_node_slurm.sh start FOLDER
#   bash tests/one_node_slurm.sh stop FOLDER
set -euo pipefail

action=$1
folder=$(realpath -m "$2")
node=$(hostname -s)

start() {
    # Jobs look for the file there and nowhere else.
    if [ -e /etc/slurm/slurm.conf ]; then
        echo "/etc/slurm/slurm.conf is there already" >&2
        exit 1
    fi
    mkdir -p "$folder/state" "$folder/spool" /etc/slurm /run/munge
    cat > /etc/slurm/slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=60 State=UP
CONF
    printf 'NodeName=%s Name=gpu File=%s\n' "$node" /dev/null "$node" /dev/zero > /etc/slurm/gres.conf
    [ -s /etc/munge/munge.key ] || head -c 1024 /dev/urandom > /etc/munge/munge.key
    chown munge: /etc/munge/munge.key /run/munge
    chmod 400 /etc/munge/munge.key
    [ -e /run/munge/munged.pid ] || runuser -u munge -- munged
    slurmctld
    slurmd
    for _ in $(seq 30); do
        sinfo --noheader --states=idle | grep -q . && return
        sleep 1
    done
    echo "the node does not get ready: $folder/slurmctld.log" >&2
    exit 1
}

stop() {
    for daemon in slurmd slurmctld; do
        kill "$(cat "$folder/$daemon.pid")"
    done
    kill "$(cat /run/munge/munged.pid)"
    rm /etc/slurm/slurm.conf /etc/slurm/gres.conf
}

"$action"
