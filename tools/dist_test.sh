#!/usr/bin/env bash
# A benchmark in several processes: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py].
# CHECKPOINT '' or 'none' keeps the config's weights. Without CUDA the processes share the CPU (gloo). Several
# machines: NNODES, NODE_RANK, MASTER_ADDR, PORT.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]" >&2
    exit 2
fi
config=$1 checkpoint=$2 gpus=$3
shift 3
[ "$checkpoint" = none ] && checkpoint=
if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
    meeting=(--standalone) # a free port, and no meeting with what is left of an earlier run
else
    meeting=(--nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}"
        --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}")
fi
exec "${PYTHON:-python}" -m torch.distributed.run "${meeting[@]}" --nproc_per_node="$gpus" \
    "$(dirname "$0")/test.py" "$config" ${checkpoint:+"$checkpoint"} --launcher pytorch "$@"
