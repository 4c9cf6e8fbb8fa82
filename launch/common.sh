# shellcheck shell=bash disable=SC2034  # the variables are for the scripts that source this file
# What the launch scripts share: options, messages, and commands that a dry run only prints.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) # the repository
dry_run='' config='' workdir='' positional=() rest=() arguments=() answer=''

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
  say "$@"
  exit 1
}

# Wrong arguments.
wrong() {
  say "$* (--help explains)"
  exit 2
}

# The arguments as one line that a shell, this one or another, reads back as the same arguments.
quote() {
  local word line='' end="'\\''"
  for word in "$@"; do
    if [[ ! $word =~ ^[a-zA-Z0-9_@%+=:,./-]+$ ]]; then
      word=${word//\'/"$end"}
      word="'$word'"
    fi
    line+="${line:+ }$word"
  done
  printf '%s' "$line"
}

show() {
  quote "$@"
  echo
}

# Runs a command; says which, if it fails. A dry run prints it instead.
run() {
  local code=0
  if [[ -n $dry_run ]]; then
    show "$@"
    return
  fi
  "$@" || code=$?
  ((code == 0)) || say "exit code $code from: $(quote "$@")"
  return "$code"
}

# The same, with what the command prints in `answer`; nothing in a dry run.
ask() {
  local code=0
  answer=''
  if [[ -n $dry_run ]]; then
    show "$@"
    return
  fi
  answer=$("$@" 2>&1) || code=$?
  ((code == 0)) || say "exit code $code from: $(quote "$@")"$'\n'"$answer"
  return "$code"
}

# parse_options "zone max-failures" "spot" ARGUMENT...: sets the variable that is named like the
# option (max_failures), `positional`, and `rest`, which is everything behind `--`.
parse_options() {
  local with_value=" $1 " without=" $2 dry-run " given # an option of such a name would be lost
  shift 2
  while (($#)); do
    case $1 in
      --) rest=("${@:2}") && return ;;
      -h | --help) usage && exit 0 ;;
      --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    esac
    given=${1#--}
    if [[ $1 != -* ]]; then
      positional+=("$1")
    elif [[ $with_value == *" $given "* && $given != *' '* ]]; then
      [[ -n ${2:-} && $2 != --* ]] || wrong "$1 needs a value"
      printf -v "${given//-/_}" '%s' "$2"
      shift
    elif [[ $without == *" $given "* && $given != *' '* ]]; then
      printf -v "${given//-/_}" yes
    else
      wrong "there is no option $1"
    fi
    shift
  done
}

# require zone type: these options must have been given.
require() {
  local option
  for option in "$@"; do
    [[ -n ${!option} ]] || wrong "--${option//_/-} is missing"
  done
}

# check zone REGEX 'a zone, such as us-east5-b': an option must look like this.
check() {
  [[ ${!1} =~ $2 ]] || wrong "--${1//_/-} is '${!1}'; it must be $3"
}

# Sets `arguments` to those of jfusion.main. The config must be here: a run is too dear for a typo.
training_arguments() {
  require config workdir
  [[ -f $root/${config%%:*} ]] ||
    wrong "--config is '$config'; there is no such file in the repository $root"
  arguments=(--config "$config" --workdir "$workdir" --distributed ${rest[@]+"${rest[@]}"})
}
