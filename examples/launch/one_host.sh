#!/usr/bin/env bash
# Train on all devices of this machine, in one process. Paths are relative to the project's folder.
#
#   examples/launch/one_host.sh --config=configs/sr.py:scale=2,preset=edsr_s_nsr --workdir=runs/x2
#
# SIGTERM or Ctrl-C: saves and ends with exit code 75. The same command goes on from there.
set -euo pipefail
cd "$(dirname "$0")/../.."
. examples/launch/environment.sh
exec "$PYTHON" train.py "$@" # exec: signals to this script's process are signals to Python
