# Sourced by the scripts beside it, in the project's folder: what all processes of all jobs have in common.
# On several hosts $SHARED must be a folder that all of them see, with --workdir in it.
#
# NSR_DATA_DIR is the caller's: the folder of benchmark sets, and of DIV2K's zip files in DIV2K/.

SHARED="${SHARED:-$PWD/runs}"
export PYTHON="${PYTHON:-.venv/bin/python}"
export TFDS_DATA_DIR="${TFDS_DATA_DIR:-$SHARED/datasets}" # prepared once, by whichever process comes first
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$SHARED/compiled}" # a restart need not compile again
