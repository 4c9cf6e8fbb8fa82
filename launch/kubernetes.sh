#!/usr/bin/env bash
# Trains on a Kubernetes cluster that has JobSet: GPUs of several nodes, or a TPU slice in GKE.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat << 'TEXT'
usage: launch/kubernetes.sh image  --image IMAGE --extras EXTRAS
       launch/kubernetes.sh run    NAME --on gpu --nodes N --gpus N --image IMAGE
                                   --config CONFIG --workdir FOLDER [-- ARGUMENT OF jfusion.main...]
       launch/kubernetes.sh run    NAME --on v6e --topology 4x4 --image IMAGE
                                   --config CONFIG --workdir FOLDER [-- ARGUMENT OF jfusion.main...]
       launch/kubernetes.sh status NAME
       launch/kubernetes.sh logs   NAME
       launch/kubernetes.sh delete NAME

options
  --image IMAGE            REGISTRY/NAME:TAG
  --extras EXTRAS          image: extras of this package: tpu, or cuda with the bucket's gcs or s3
  --on gpu|v5e|v6e         run: the accelerator
  --nodes N   --gpus N     run on gpu: nodes, and GPUs of each
  --topology AxB           run on a TPU: that of the node pool, of machines with four chips
  --spot                   run: on spot nodes of GKE, which are cheaper and may be taken back
  --config CONFIG          run: configs/NAME.py or configs/NAME.py:VARIANT
  --workdir FOLDER         run: gs:// or s3://BUCKET/...; an unfinished run in it goes on
  --service-account NAME   run: the cluster's, with access to the bucket (default)
  --namespace NAME         kubectl's own setting if not given
  --dry-run                print every command and run none
TEXT
}

image='' extras='' on='' nodes='' gpus='' topology='' spot='' service_account=default namespace=''
parse_options "image extras on nodes gpus topology config workdir service-account namespace" \
  "spot" "$@"
command=${positional[0]:-} name=${positional[1]:-}
kubectl=(kubectl)
[[ -z $namespace ]] || kubectl+=(--namespace="$namespace")

check_image() {
  require image
  check image '^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$' 'REGISTRY/NAME:TAG'
}

# A text as a string of JSON, hence of YAML. Kubernetes takes $(NAME) for a variable, and $$ for $.
json() {
  local text=${1//\\/\\\\}
  [[ $text != *[[:cntrl:]]* ]] || wrong "an argument holds a control character: $(quote "$1")"
  text=${text//\"/\\\"}
  printf '"%s"' "${text//\$/\$\$}"
}

# fill NAME VALUE: puts the value in the manifest's place of that name.
fill() {
  manifest=${manifest//"__$1__"/"$2"}
}

image() {
  check_image
  require extras
  check extras '^[a-z0-9]+(,[a-z0-9]+)*$' 'extras of the package, such as cuda,gcs or cuda,s3'
  run docker build --platform=linux/amd64 --file="$root/launch/Dockerfile" \
    --build-arg="EXTRAS=$extras" --tag="$image" "$root"
  run docker push "$image"
}

train() {
  local kind=tpu hosts chips accelerator='' list='' argument
  training_arguments
  check workdir '^(gs|s3)://[^/]+/.+' 'gs:// or s3://BUCKET/FOLDER: a pod loses its disk'
  check_image
  require on
  check service_account '^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$' 'the name of a service account'
  case $on in
    gpu)
      require nodes gpus
      check nodes '^[1-9][0-9]*$' 'a whole number from 1'
      check gpus '^[1-9][0-9]*$' 'a whole number from 1'
      kind=gpu hosts=$nodes chips=$gpus
      ;;
    v5e | v6e)
      require topology
      check topology '^[1-9][0-9]*x[1-9][0-9]*$' 'rows and columns of chips, such as 4x4'
      chips=4 hosts=$((${topology%x*} * ${topology#*x} / chips))
      ((hosts * chips == ${topology%x*} * ${topology#*x})) ||
        wrong "--topology is '$topology'; its chips must be a multiple of four"
      accelerator=tpu-v6e-slice
      [[ $on == v6e ]] || accelerator=tpu-v5-lite-podslice
      ;;
    *) wrong "--on is '$on'; it must be gpu, v5e or v6e" ;;
  esac
  for argument in "${arguments[@]}"; do
    list+=${list:+, }$(json "$argument")
  done

  local manifest
  manifest=$(< "$root/launch/jobset_$kind.yaml")
  fill NAME "$name"
  fill IMAGE "$image"
  fill HOSTS "$hosts"
  fill CHIPS "$chips"
  fill ACCELERATOR "$accelerator"
  fill TOPOLOGY "$topology"
  fill SERVICE_ACCOUNT "$service_account"
  fill SPOT "$([[ -n $spot ]] && echo Exists || echo DoesNotExist)"
  fill ARGUMENTS "[$list]" # last: nothing in them is a place
  if [[ -n $dry_run ]]; then
    printf "%s <<'EOF'\n%s\nEOF\n" "$(quote "${kubectl[@]}" create --filename=-)" "$manifest"
  else
    run "${kubectl[@]}" create --filename=- <<< "$manifest"
  fi
}

status() {
  run "${kubectl[@]}" get jobset "$name"
  run "${kubectl[@]}" get pods --selector="jobset.sigs.k8s.io/jobset-name=$name" --output=wide
}

# Process 0 tells how the run goes.
logs() {
  local process=batch.kubernetes.io/job-completion-index=0
  run "${kubectl[@]}" logs --follow --tail=100 \
    --selector="jobset.sigs.k8s.io/jobset-name=$name,$process"
}

delete() {
  run "${kubectl[@]}" delete jobset "$name"
}

case $command in
  image) ((${#positional[@]} == 1)) || wrong "image takes no name" ;;
  run | status | logs | delete)
    ((${#positional[@]} == 2)) || wrong "$command needs the name of the run"
    # The name of a pod, NAME-host-0-NUMBER-SUFFIX, is that of a host, of 63 letters at most.
    [[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
      wrong "the name is '$name'; it must be of at most 40 of a-z, 0-9 and -, and begin with a letter"
    ;;
  *) wrong "there is no command '$command'" ;;
esac
[[ $command != run ]] || command=train
"$command"
