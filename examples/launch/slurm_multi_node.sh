#!/usr/bin/env bash
# One run on the GPUs of several nodes, one process a GPU. Submit it in the project's folder:
#
#   SHARED=/shared sbatch --nodes=2 examples/launch/slurm_multi_node.sh \
#       --config=configs/sr.py:scale=2,preset=edsr_s_nsr --workdir=/shared/x2 --config.batch_size=256
#
#SBATCH --job-name=nsr
#SBATCH --output=%x_%j.log
#SBATCH --open-mode=append
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
. examples/launch/environment.sh

# --signal: 120 s before the time is up Slurm sends SIGTERM to what srun has started (not to this shell), which saves
# and ends with 75. 134: another process was silent for too long. In both cases the same job goes on from its checkpoint.
# --kill-on-bad-exit=0: who has ended must not take along those that still save. --gpu-bind=none: every process sees all
# GPUs of its node, and JAX gives it the one of its $SLURM_LOCALID.
code=0
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 --gpu-bind=none \
    "$PYTHON" train.py --distributed "$@" || code=$?
if ((code == 75 || code == 134)) && ((${SLURM_RESTART_COUNT:-0} < 50)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
