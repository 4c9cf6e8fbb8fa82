#!/usr/bin/env bash
# What tpu.sh does on each worker of a slice, over SSH: install, start, report.
#
#   tpu_worker.sh setup
#   tpu_worker.sh start ARGUMENT...     of jfusion.main; comes back at once
#   tpu_worker.sh status [ARGUMENT...]  prints running, "exited CODE", lost or idle
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
environment=$HOME/jfusion-environment
state=$HOME/jfusion-run # lock, arguments, log, exit

setup() {
  # The image's own Python is too old for jfusion; uv brings one along.
  python3 -m pip install --quiet --user uv
  python3 -m uv venv --quiet --allow-existing --python 3.11 "$environment"
  python3 -m uv pip install --quiet --python "$environment/bin/python" \
    --constraint requirements.lock --editable '.[tpu]'
}

start() {
  mkdir -p "$state"
  # The run inherits the lock and holds it to its end, however that comes; no process number can
  # be mistaken for another after a reboot.
  exec 9> "$state/lock"
  if ! flock --nonblock 9; then
    echo "tpu_worker.sh: a run is in progress on $(hostname)" >&2
    exit 1
  fi
  rm -f "$state/exit"
  printf '%q ' "$@" > "$state/arguments"
  setsid bash launch/tpu_worker.sh supervise "$@" >> "$state/log" 2>&1 < /dev/null &
}

supervise() {
  local code=0
  PYTHONUNBUFFERED=1 "$environment/bin/python" -m jfusion.main "$@" || code=$?
  echo "$code" > "$state/exit"
}

# A run with other arguments is none of ours: idle.
status() {
  local report=idle
  if [[ -e $state/lock ]] && ! flock --nonblock "$state/lock" true; then
    report=running
  elif [[ -e $state/arguments ]] &&
    { (($# == 0)) || [[ $(printf '%q ' "$@") == "$(< "$state/arguments")" ]]; }; then
    report=lost # the worker was started anew, or the process was killed
    [[ ! -e $state/exit ]] || report="exited $(< "$state/exit")"
  fi
  echo "jfusion-worker: $report"
}

case ${1:-} in
  setup | start | supervise | status) "$@" ;;
  *) echo "tpu_worker.sh: not a command: '${1:-}'" >&2 && exit 2 ;;
esac
