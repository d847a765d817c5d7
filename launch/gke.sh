#!/usr/bin/env bash
# Runs a config on Google Kubernetes Engine, on TPUs or GPUs, as a JobSet.
#
#   launch/gke.sh [options] NAME ACCELERATOR:SHAPE IMAGE CONFIG [arguments]
#
#   launch/gke.sh --spot r18 v5e:4x4 IMAGE configs/kdep_r18.py \
#     --workdir gs://bucket/runs/r18
#   launch/gke.sh r18 nvidia-h100-80gb:2x8 IMAGE configs/kdep_r18.py \
#     --workdir gs://bucket/runs/r18
#
# A TPU has a topology; a GPU, named as GKE does, hosts x GPUs on each. It fills
# in launch/gke.yaml, applies it to the cluster that kubectl uses and shows pod
# 0's log to the end; Ctrl-C ends only that, and the same command shows it
# again. Lost hosts and preemptions start all pods again, which go on from the
# workdir, so that must be in a bucket: gs://... or s3://...
#
#   --spot           on spot nodes
#   --chips N        TPU chips on one host, default: 4, or all of 1x1 to 2x4
#   --namespace NS   default: kubectl's
#   --restarts N     how often all pods may start again, default: 100
#   --delete         delete the JobSet at the end, also after Ctrl-C
#   --print          print the filled-in manifest, apply nothing
#   --dry-run        print the commands, run none
#   --help           print this
#
# Exit status: 0 once the run has finished; 1 where it, or kubectl, fails; 2
# for a wrong command line.
#
# KD_JAX_POLL  seconds between two looks at the pods, default: 10
set -u

say() { printf 'launch/gke.sh: %s\n' "$*" >&2; }
refuse() { say "$*"; exit 2; }
usage="usage: launch/gke.sh [options] NAME ACCELERATOR:SHAPE IMAGE CONFIG"

all=()
for argument in "$@"; do
  [ "$argument" = --dry-run ] || all+=("$argument")
done
spot='' chips='' delete='' dry='' print='' restarts=100 namespace=()
while [ $# -gt 0 ]; do
  case $1 in
    --spot) spot=yes ;;
    --delete) delete=yes ;;
    --dry-run) dry=yes ;;
    --print) print=yes ;;
    --help) sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0"; exit ;;
    --chips | --namespace | --restarts)
      [ $# -ge 2 ] || refuse "$1 needs a value; $usage"
      case $1 in
        --chips) chips=$2 ;;
        --namespace) namespace=(--namespace="$2") ;;
        --restarts) restarts=$2 ;;
      esac
      shift ;;
    -*) refuse "there is no option $1; launch/gke.sh --help lists them" ;;
    *) break ;;
  esac
  shift
done
[ $# -ge 4 ] || refuse "got '$*'; $usage [arguments]"
name=$1 accelerator=${2%%:*} shape=${2#*:} image=$3
given=$2
shift 3
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
  refuse "NAME is '$name'; it must be up to 40 small letters, digits and -"
[[ $restarts =~ ^[0-9]+$ ]] ||
  refuse "--restarts is '$restarts'; it must be a number"

kind=tpu
case $accelerator in
  v4) accelerator=tpu-v4-podslice ;;
  v5e) accelerator=tpu-v5-lite-podslice ;;
  v5p) accelerator=tpu-v5p-slice ;;
  v6e) accelerator=tpu-v6e-slice ;;
  nvidia-*) kind=gpu ;;
  *)
    refuse "there is no accelerator '$given'; there are v4, v5e, v5p, v6e and" \
      "GKE's names of GPUs, nvidia-..., each with :SHAPE" ;;
esac
if [ "$kind" = gpu ]; then
  [[ $shape =~ ^[1-9][0-9]*x[1-9][0-9]*$ ]] ||
    refuse "'$given' has no shape; write HOSTSxGPUS, as in :2x8"
  hosts=${shape%x*} chips=${shape#*x}
else
  [[ $shape =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] ||
    refuse "'$given' has no topology; write it as in v5e:4x4 or v4:2x2x2"
  total=$((${shape//x/*}))
  case $shape in
    1x1 | 2x2 | 2x4) chips=${chips:-$total} ;;
    *) chips=${chips:-4} ;;
  esac
  [[ $chips =~ ^[1-9][0-9]*$ ]] && [ $((total % chips)) -eq 0 ] ||
    refuse "$total chips ($shape) do not split into hosts of --chips '$chips'"
  hosts=$((total / chips))
fi

workdir='' before='' arguments=''
for argument in "$@"; do
  [ "$before" != --workdir ] || workdir=$argument
  case $argument in --workdir=*) workdir=${argument#*=} ;; esac
  before=$argument
  argument=${argument//\\/\\\\}
  arguments="$arguments, \"${argument//\"/\\\"}\"" # as JSON, which YAML reads
done
case $workdir in
  gs://* | s3://*) ;;
  *)
    refuse "the disk of a pod, and ${workdir:-runs/...} on it, is lost with" \
      "the pod; add --workdir gs://BUCKET/FOLDER after the config" ;;
esac

manifest() {
  local line
  while IFS= read -r line; do
    case $line in
      '#'*) continue ;;
      *' # tpu' | *' # gpu') [ "${line##* }" = "$kind" ] || continue ;;
      *' # spot') [ -n "$spot" ] || continue ;;
    esac
    line=${line% # ???} line=${line% # spot}
    line=${line//NAME/"$name"}
    line=${line//HOSTS/"$hosts"}
    line=${line//CHIPS/"$chips"}
    line=${line//RESTARTS/"$restarts"}
    line=${line//ACCELERATOR/"$accelerator"}
    line=${line//TOPOLOGY/"$shape"}
    case $line in
      *IMAGE) line=${line%IMAGE}$image ;;
      *ARGUMENTS) line=${line%ARGUMENTS}"[${arguments#, }]" ;;
    esac
    printf '%s\n' "$line"
  done <"$(dirname "$0")/gke.yaml"
}
if [ -n "$print" ]; then
  manifest
  exit
fi

run() { # a command; with --dry-run it is only printed, quoted for a shell
  local text
  if [ -z "$dry" ]; then
    "$@"
  else
    printf -v text '%q ' "$@"
    printf '%s\n' "${text% }"
  fi
}
kube() { run kubectl "$@" ${namespace[@]+"${namespace[@]}"}; }
state() { # the conditions that hold; prints nothing if there is no such JobSet
  kube get jobset "$name" --ignore-not-found \
    --output='jsonpath={"is "}{.status.conditions[?(@.status=="True")].type}'
}
apply() {
  if [ -z "$dry" ]; then
    manifest | kube apply --filename=-
  else # the very text is what --print gives
    printf '%s | ' "$(run "$0" --print "${all[@]}")"
    kube apply --filename=-
  fi
}
pods() { # output; of pod 0
  local of="jobset.sigs.k8s.io/jobset-name=$name"
  of=$of,batch.kubernetes.io/job-completion-index=0
  kube get pods --output="$1" --selector="$of"
}
logs() { # pod, time from which on
  kube logs "$1" --container=kd-jax --follow --since-time="$2"
}
remove() { kube delete jobset "$name" --ignore-not-found; }

if [ -n "$dry" ]; then
  state
  apply
  pods name
  logs pod/"$name-run-0-0-XXXXX" 1970-01-01T00:00:00Z
  [ -z "$delete" ] || remove
  exit
fi
command -v kubectl >/dev/null ||
  refuse "there is no kubectl; install it, and gcloud container clusters" \
    "get-credentials names the cluster"

made='' watcher=''
leave() {
  local status=$?
  trap '' TERM INT HUP
  [ -z "$watcher" ] || kill -s TERM -- "-$watcher" 2>/dev/null
  if [ -n "$made" ] && [ -n "$delete" ]; then
    remove >/dev/null || say "the JobSet $name may still be there; delete it"
  elif [ -n "$made" ] && [ "$status" -ge 128 ]; then
    say "the run goes on as $name; the same command shows it again"
  fi
  exit "$status"
}
unseen() { say "kubectl cannot look at the cluster; see above"; exit 1; }
trap leave EXIT
trap 'exit 130' INT HUP
trap 'exit 143' TERM

found=$(state) || unseen
made=yes
case $found in
  *Completed* | *Failed*)
    made=''
    say "there is a JobSet $name already, which $found; kubectl delete jobset" \
      "$name, or choose another NAME"
    exit 1 ;;
  is*) say "$name is there already; its log follows" ;;
  *)
    made=''
    apply >/dev/null || { say "the cluster refuses $name; see above"; exit 1; }
    made=yes
    say "$name has $hosts pods of $chips chips each" ;;
esac

since='' last='' told=''
show() { # what pod 0 says from where it was, up to its end
  local pod
  pod=$(pods name | tail -n 1)
  [ -n "$pod" ] || return 0
  [ "$pod" = "$last" ] || since=1970-01-01T00:00:00Z
  set -m # a process group of its own, to be ended with this script
  logs "$pod" "$since" 2>/dev/null &
  watcher=$!
  set +m
  wait "$watcher" && last=$pod
  watcher=''
  since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
}

why='jsonpath={.items[*].status.conditions[?(@.type=="PodScheduled")].message}'
while :; do
  show
  found=$(state) || unseen
  case $found in
    *Completed* | *Failed*) show ;; # a pod may have come and gone meanwhile
  esac
  case $found in
    '') made=''; say "the JobSet $name is gone"; exit 1 ;;
    *Completed*) say "finished"; exit 0 ;;
    *Failed*)
      say "the run has failed, or was lost more than $restarts times; see above"
      exit 1 ;;
  esac
  waits=$(pods "$why" 2>/dev/null)
  [ -z "$waits" ] || [ "$waits" = "$told" ] || say "waiting: $waits"
  told=$waits
  sleep "${KD_JAX_POLL:-10}"
done
