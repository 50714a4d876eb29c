#!/usr/bin/env bash
# The runs of a sweep, one a task of a Slurm array, each on one GPU. --list says how many runs there are. Submit it in the
# project's folder:
#
#   SHARED=/shared sbatch --array=0-20 examples/launch/slurm_sweep.sh configs/sweeps/cardinality.py
#
# When the runs have ended: python -m nsr_jax.sweep configs/sweeps/cardinality.py --workdir=… --collect
#
#SBATCH --job-name=nsr_sweep
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

# As in slurm_array.sh: 75 is a run that was told to stop and has saved its state.
code=0
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "$PYTHON" -m nsr_jax.sweep "$@" \
    --workdir="$SHARED/$(basename "$1" .py)" --index="$SLURM_ARRAY_TASK_ID" || code=$?
if ((code == 75 || code == 134)) && ((${SLURM_RESTART_COUNT:-0} < 50)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
