#!/usr/bin/env bash
# All eight benchmarks and one table: bash eval_all.sh --sample, or bash eval_all.sh --help.
exec "${PYTHON:-python}" "$(dirname "$0")/tools/eval_all.py" "$@"
