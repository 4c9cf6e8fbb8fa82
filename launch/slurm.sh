#!/usr/bin/env bash
# Trains on the GPUs of a Slurm cluster, one process per GPU.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat << 'TEXT'
usage: launch/slurm.sh --config CONFIG --workdir FOLDER --nodes N --gpus N --time TIME
                       [OPTION...] [-- ARGUMENT OF jfusion.main...]

Submits a job that saves itself before its time is over, queues itself again, and goes on.

options
  --config CONFIG    configs/NAME.py or configs/NAME.py:VARIANT
  --workdir FOLDER   the run's folder, which all nodes must see; an unfinished run in it goes on
  --nodes N          nodes
  --gpus N           GPUs of each node, all of them: JAX counts them from 0
  --time TIME        Slurm's time limit of one turn, such as 4:00:00
  --grace SECONDS    how long before the limit to save and stop (180)
  --cpus N           cores for each GPU (8)
  --restarts N       how often the job may queue itself again (50)
  --partition NAME   --account NAME   --name NAME (jfusion)
  --python PATH      (.venv/bin/python of this repository)
  --dry-run          print the command and do not run it

Slurm reads its other options from the environment: SBATCH_QOS, SBATCH_CONSTRAINT, ...
TEXT
}

nodes='' gpus='' time='' grace=180 cpus=8 restarts=50 partition='' account='' name=jfusion
python=$root/.venv/bin/python
parse_options "config workdir nodes gpus time grace cpus restarts partition account name python" \
  "" "$@"
((${#positional[@]} == 0)) || wrong "'${positional[0]}' belongs to no option"
training_arguments
require nodes gpus time
for option in nodes gpus cpus grace restarts; do
  check "$option" '^[1-9][0-9]*$' 'a whole number from 1'
done
check time '^([0-9]+-)?[0-9]+(:[0-9]{1,2}){0,2}$' 'a time, such as 30, 4:00:00 or 1-12'
[[ -x $python ]] || wrong "--python is '$python'; there is no such program"

submit=(sbatch --job-name="$name" --nodes="$nodes" --ntasks-per-node="$gpus"
  --gpus-per-node="$gpus" --cpus-per-task="$cpus" --time="$time" --chdir="$root"
  --requeue --open-mode=append --signal="TERM@$grace")
[[ -z $partition ]] || submit+=(--partition="$partition")
[[ -z $account ]] || submit+=(--account="$account")

# Every process must see all GPUs of its node, and takes the one of its own number there
# (jax/_src/clusters/slurm_cluster.py). One that stops with exit code 75 must not have the others
# killed while they save; those that outlive it by ten minutes hang.
run "${submit[@]}" "$root/launch/slurm.sbatch" "$restarts" \
  srun --gpu-bind=none --cpus-per-task="$cpus" --kill-on-bad-exit=0 --wait=600 \
  "$python" -m jfusion.main "${arguments[@]}"
