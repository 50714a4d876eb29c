#!/usr/bin/env bash
# The benchmarks on a machine with a GPU, in parts.
#
#   OUT=results benchmarks/gpu.sh                    all parts, one after another
#   OUT=results benchmarks/gpu.sh conv bfloat16      one part: environment, memory, or with float32 or bfloat16 behind it
#                                                    conv, conv_more, step, step_compiled
#
# Needs: JAX 0.10 or 0.11 with CUDA, Flax, Optax, Orbax (which brings absl), ml_collections, Pillow, SciPy, tqdm, and
# PyTorch with CUDA and Triton for its peers. No TFDS, no TensorFlow.
#
# PYTHON names the interpreter. Each part writes JSON and Markdown to $OUT, and is cut off after nine minutes; a shape that
# was not done by then is missing there. The exit code is 1 where a candidate failed: its row says why.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
OUT="$(mkdir -p "${OUT:-benchmark_results}" && cd "${OUT:-benchmark_results}" && pwd)"
# Both frameworks keep their own pool of the same memory.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.5}"
status=0

measure() { # NAME MODULE ARGUMENT...
    local name=$1
    shift
    timeout 540 "$PYTHON" -m "benchmarks.$1" "${@:2}" --output="$OUT/$name.json" 2>"$OUT/$name.log" ||
        { echo "$name: exit code $?, see $name.log" && status=1; }
}

environment() {
    { nvidia-smi && "$PYTHON" -m pip list; } >"$OUT/environment.txt" 2>&1
    "$PYTHON" -c 'import jax; print(jax.__version__, jax.devices())' || status=1
    "$PYTHON" -c 'import torch; print(torch.__version__, torch.version.cuda, torch.cuda.get_device_name())' || status=1
}

conv() { # DTYPE: one shape with every peer
    measure "conv_$1" sample_conv --dtype="$1" --shape=16,48,48,64,4,16 \
        --torch_mode=eager --torch_mode=default --torch_mode=reduce-overhead
}

conv_more() { # DTYPE: the other shapes without torch.compile, which takes minutes
    measure "conv_more_$1" sample_conv --dtype="$1" --torch_mode=eager --shape=16,48,48,32,2,16 \
        --shape=64,48,48,64,4,16 --shape=16,48,48,128,4,16 --shape=16,48,48,64,16,16 --shape=1,256,256,64,4,16
}

step() { # DTYPE
    measure "step_$1" train_step --dtype="$1" --torch_mode=eager
}

step_compiled() { # DTYPE: with torch.compile, which takes minutes for each network and layout
    measure "step_compiled_$1" train_step --dtype="$1" --torch_mode=eager --torch_mode=reduce-overhead
}

memory() {
    measure memory train_step --memory
}

if (($#)); then
    "$@"
else
    environment
    for dtype in bfloat16 float32; do
        conv "$dtype"
        conv_more "$dtype"
        step "$dtype"
        step_compiled "$dtype"
    done
    memory
fi
exit "$status"
