#!/usr/bin/env bash
# Several runs that do not know of each other, one a task of a Slurm array, each on one GPU: here one for each seed.
# Submit it in the project's folder:
#
#   SHARED=/shared sbatch --array=0-3 examples/launch/slurm_array.sh --config=configs/sr.py:scale=2,preset=edsr_s_nsr
#
#SBATCH --job-name=nsr_seeds
#SBATCH --output=%x_%A_%a.log
#SBATCH --open-mode=append
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
. examples/launch/environment.sh

# --signal: 120 s before the time is up Slurm sends SIGTERM to what srun has started (not to this shell), which saves
# and ends with 75. 134: it was lost, or did not find its peers. In both cases the same job goes on from its checkpoint.
code=0
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    "$PYTHON" train.py "$@" --config.seed="$SLURM_ARRAY_TASK_ID" --workdir="$SHARED/seed_$SLURM_ARRAY_TASK_ID" || code=$?
if ((code == 75 || code == 134)) && ((${SLURM_RESTART_COUNT:-0} < 50)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
