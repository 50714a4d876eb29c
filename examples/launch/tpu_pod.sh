#!/usr/bin/env bash
# One run on all hosts of a TPU pod slice, one process a host. The project is in the same folder of each of them, with
# its virtual environment; the workdir is on a file system that all of them have mounted.
#
#   export TPU=my-slice ZONE=us-central2-b FOLDER=nsr_jax SHARED=/shared
#   examples/launch/tpu_pod.sh start --config=configs/sr.py:scale=2,preset=edsr_s_nsr --workdir=/shared/x2
#   examples/launch/tpu_pod.sh log
#   examples/launch/tpu_pod.sh stop     # saves, then ends; the same start goes on from there
set -euo pipefail

on_every_host() {
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

# nohup: training goes on when the connection ends. The process is Python itself, so that `stop` signals no shell.
: "${NSR_DATA_DIR:=}"
case "${1:-}" in
start)
    shift
    on_every_host "set -e; cd ${FOLDER@Q}; export SHARED=${SHARED@Q} NSR_DATA_DIR=${NSR_DATA_DIR@Q}
        . examples/launch/environment.sh
        nohup \"\$PYTHON\" train.py --distributed ${*@Q} </dev/null >~/nsr_train.log 2>&1 & echo \$! >~/nsr_train.pid"
    ;;
log) on_every_host 'tail -n 5 ~/nsr_train.log' ;;
stop) on_every_host 'kill -TERM $(cat ~/nsr_train.pid)' ;;
*)
    echo "give start, log or stop, not ${1:-nothing}" >&2
    exit 2
    ;;
esac
