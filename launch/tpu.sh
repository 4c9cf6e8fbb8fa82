#!/usr/bin/env bash
# Trains on a Cloud TPU slice of any number of hosts.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat << 'TEXT'
usage: launch/tpu.sh COMMAND NAME --zone ZONE [OPTION...] [-- ARGUMENT OF jfusion.main...]

commands
  watch    everything: ask for the slice, wait for it, set up, run, start anew after a preemption,
           and delete the slice when the run is over
  create   ask for the slice; the request waits in Google's queue
  setup    send the last commit of this repository to every worker and install it there
  run      start the training on every worker, and come back
  status   the state of the slice and of each worker
  logs     follow the log of one worker
  delete   give the slice back; nothing of it is billed any more

options
  --zone ZONE               such as us-east5-b
  --project PROJECT         gcloud's own setting if not given
  --type TYPE               create, watch: accelerator type, such as v5litepod-16 or v6e-16
  --runtime VERSION         create, watch: software version of the VMs; that of the type if not given
  --spot                    create, watch: cheaper, and may be taken back at any time
  --service-account EMAIL   create, watch: who the VMs are; needs access to the bucket
  --config CONFIG           run, watch: configs/NAME.py or configs/NAME.py:VARIANT
  --workdir gs://BUCKET/... run, watch: the run's folder; an unfinished run in it goes on
  --keep                    watch: do not delete the slice at the end
  --poll SECONDS            watch: time between two looks (60)
  --worker N                logs: which worker (0)
  --dry-run                 print every command and run none
TEXT
}

# `watch` gives up at the third failure; a run that lasted an hour clears the count. It gives up
# when the workers did not answer ten times in a row.
readonly most_failures=3 most_unreachable=10 long=3600

zone='' project='' type='' runtime='' spot='' service_account='' keep='' poll=60 worker=0
parse_options "zone project type runtime service-account config workdir poll worker" "spot keep" "$@"
((${#positional[@]} == 2)) || wrong "give a command and the name of a slice"
command=${positional[0]} name=${positional[1]}
[[ $name =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] ||
  wrong "the name is '$name'; it must be of a-z, 0-9 and -, and begin with a letter"
require zone
check zone '^[a-z]+-[a-z]+[0-9]+-[a-z]$' 'a zone, such as us-east5-b'
check poll '^[0-9]+$' 'a number of seconds'
check worker '^[0-9]+$' 'the number of a worker'
location=(--zone="$zone")
[[ -z $project ]] || location+=(--project="$project")

# https://cloud.google.com/tpu/docs/runtimes
check_type() {
  require type
  check type '^v[0-9]+[a-z]*-[0-9]+$' 'an accelerator type, such as v5litepod-16 or v6e-16'
  [[ -z $runtime ]] || return 0
  case $type in
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v[234]-*) runtime=tpu-ubuntu2204-base ;;
    *) wrong "no software version is known for --type '$type'; give --runtime" ;;
  esac
}

check_training() {
  training_arguments
  check workdir '^gs://[^/]+/.+' 'gs://BUCKET/FOLDER: a disk of the slice is lost with it'
}

create() {
  local request=(gcloud compute tpus queued-resources create "$name" --node-id="$name"
    "${location[@]}" --accelerator-type="$type" --runtime-version="$runtime")
  [[ -z $spot ]] || request+=(--spot)
  [[ -z $service_account ]] || request+=(--service-account="$service_account")
  run "${request[@]}"
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" "${location[@]}" --force --quiet
}

# Sets `state`: absent, a state of the queued resource, or PREEMPTED, which its VMs may be before
# the queued resource is SUSPENDED.
look() {
  local which
  state=absent
  ask gcloud compute tpus queued-resources list "${location[@]}" \
    --format='value(name.basename(), state.state)' || return
  while read -r which found; do [[ $which != "$name" ]] || state=$found; done <<< "$answer"
  [[ $state == ACTIVE || -n $dry_run ]] || return 0
  ask gcloud compute tpus tpu-vm list "${location[@]}" \
    --format='value(name.basename(), state)' || return
  while read -r which found; do
    [[ $which != "$name" || ! $found =~ ^(PREEMPTED|TERMINATED)$ ]] || state=PREEMPTED
  done <<< "$answer"
}

# on all 'SHELL COMMAND': the command that runs it on the workers.
on() {
  ssh=(gcloud compute tpus tpu-vm ssh "$name" "${location[@]}" --quiet
    --worker="$1" --command="$2")
}

setup() {
  local archive=$root/build/jfusion-$name.tar.gz
  run mkdir -p "$root/build" &&
    run git -C "$root" archive --format=tar.gz --prefix=jfusion/ --output="$archive" HEAD &&
    run gcloud compute tpus tpu-vm scp "$archive" "$name:jfusion.tar.gz" "${location[@]}" \
      --quiet --worker=all &&
    on all 'rm -rf jfusion && tar xzf jfusion.tar.gz && bash jfusion/launch/tpu_worker.sh setup' &&
    run "${ssh[@]}"
}

start() {
  on all "bash jfusion/launch/tpu_worker.sh start $(quote "${arguments[@]}")"
  run "${ssh[@]}"
}

# Sets `workers` to the different states of the workers, one per line.
ask_workers() {
  local script=jfusion/launch/tpu_worker.sh
  on all "if [ -e $script ]; then bash $script status${1:+ $1}; else echo jfusion-worker: new; fi"
  workers=''
  ask "${ssh[@]}" || return
  workers=$(sed -n 's/^jfusion-worker: //p' <<< "$answer" | sort -u)
}

status() {
  look
  [[ -n $dry_run ]] || echo "$name: $state"
  [[ $state == ACTIVE || -n $dry_run ]] || return 0
  ask_workers
  [[ -n $dry_run ]] || echo "workers: ${workers//$'\n'/, }"
}

logs() {
  on "$worker" 'tail -n 100 -F jfusion-run/log'
  run "${ssh[@]}"
}

# The end of `watch`, good or bad: nobody may be here to see that the slice is still billed.
finish() {
  trap - EXIT
  if [[ $1 != 0 ]]; then
    on 0 'tail -n 50 jfusion-run/log'
    run "${ssh[@]}" || true
  fi
  if [[ -n $keep ]]; then
    say "$name is kept, and billed until: launch/tpu.sh delete $name ${location[*]}"
  else
    delete || die "$name could not be deleted and is still billed"
  fi
  exit "$1"
}

give_up() {
  say "$*: giving up"
  finish 1
}

# One look at a slice that is there, and what follows from it.
tend() {
  local failed
  if ! ask_workers "$(quote "${arguments[@]}")" || [[ -z $workers ]]; then
    ((++unreachable < most_unreachable)) || give_up "no answer from $name, $unreachable times"
    return 0
  fi
  unreachable=0
  ! grep -qx running <<< "$workers" || return 0
  if [[ $workers == 'exited 0' ]]; then
    say "the run is finished: $workdir"
    finish 0
  fi
  ! grep -qx 'exited 2' <<< "$workers" || give_up "the config, a path or the data are wrong"
  failed=$(grep -vxE 'exited 75|new|idle|lost' <<< "$workers") || true
  if [[ -n $failed ]]; then
    (($(date +%s) - started < long)) || failures=0
    failure "the run ended with ${failed//$'\n'/, }"
  fi
  say "starting the run"
  started=$(date +%s)
  { setup && start; } || failure "the run could not be started"
}

failure() {
  ((++failures < most_failures)) || give_up "$*; that is failure $failures"
  say "$*; trying again"
}

watch() {
  local last='' failures=0 unreachable=0 started=0
  if [[ -n $dry_run ]]; then
    look && create && look && setup && start
    ask_workers "$(quote "${arguments[@]}")" && delete
    return
  fi
  trap 'say "stopped; $name may be there and billed: launch/tpu.sh status $name ${location[*]}"' EXIT
  while true; do
    if look; then
      [[ $state == "$last" ]] || say "$(date -u +%FT%TZ) $name: $state"
      last=$state
      case $state in
        absent) create ;;
        ACTIVE) tend ;;
        SUSPENDED | PREEMPTED)
          failures=0
          delete || true
          ;;
        FAILED)
          failure "the request for $name failed"
          delete || true
          ;;
      esac
    fi
    sleep "$poll"
  done
}

case $command in
  create) check_type && create ;;
  run) check_training && start ;;
  watch) check_type && check_training && watch ;;
  setup | status | logs | delete) "$command" ;;
  *) wrong "there is no command '$command'" ;;
esac
