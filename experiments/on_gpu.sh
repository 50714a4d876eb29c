#!/usr/bin/env bash
# Train comparisons on a bare machine with a GPU, one piece of them within the time of one command.
#
#   OUT=results PACK=runs/same_data/pack experiments/on_gpu.sh --runs=sr_x2_nsr,sr_x2 --seconds=500
#
# PACK is what `python -m experiments.pack` wrote: wheels that the machine lacks are installed beside its own packages
# (JAX with CUDA, Flax, Optax, Orbax …), and the images are found there. PYTHON names the interpreter. The same command
# again goes on where the last one stopped. $OUT gets what `python -m experiments.unpack` reads.
set -euo pipefail
cd "$(dirname "$0")/.."
PACK="$(realpath "${PACK:-runs/same_data/pack}")"
SITE="${SITE:-/tmp/nsr_jax_site}"
export NSR_DATA_DIR="$PACK/data" TFDS_DATA_DIR="${TFDS_DATA_DIR:-runs/same_data/records}" PYTHONUNBUFFERED=1
if [ -d "$PACK/wheels" ]; then
    if [ ! -d "$SITE" ]; then
        "${PYTHON:-python3}" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
            --target "$SITE.part" "$PACK"/wheels/*.whl
        mv "$SITE.part" "$SITE"
    fi
    export PYTHONPATH="$SITE${PYTHONPATH:+:$PYTHONPATH}"
fi
exec "${PYTHON:-python3}" -m experiments.piece --output="${OUT:-results}" "$@"
