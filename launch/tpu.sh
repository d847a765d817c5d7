#!/usr/bin/env bash
# Runs a config on a TPU of Google Cloud, from one host to a pod.
#
#   launch/tpu.sh [options] NAME ZONE ACCELERATOR CONFIG[:variant] [arguments]
#
#   launch/tpu.sh --spot --delete try us-west4-a v5litepod-16 \
#     configs/kdep_r18.py --workdir gs://bucket/runs/try
#
# It makes the TPU VM NAME, or takes the one that is there; copies the last
# commit to all its workers, installs, starts and shows worker 0's log. A lost
# connection does not end the run: the same command finds it again. After a
# preemption the TPU is made anew and the run goes on from its workdir, which
# must be in a bucket (gs://... or s3://...) then, and where there are several
# hosts.
#
#   --spot, --preemptible  cheaper, and may be taken away at any time
#   --queued               wait in Google's queue, as the queued resource NAME
#   --delete               delete the TPU at the end, also after an error;
#                          Ctrl-C lets the run save first
#   --restarts N           how often it starts again, default: 100
#   --version VERSION      software of the TPU VM, default: by the accelerator
#   --project PROJECT      default: gcloud's
#   --create FLAG          one more flag of gcloud's create command; repeatable
#   --dry-run              print the commands, run none
#   --help                 print this
#
# Exit status: the run's (see kd_jax.main), 0 once it has finished; 1 where
# gcloud refuses; 2 for a wrong command line.
#
# KD_JAX_POLL  seconds between two looks at a TPU that is not ready, default: 30
set -u

say() { printf 'launch/tpu.sh: %s\n' "$*" >&2; }
refuse() { say "$*"; exit 2; }
usage="usage: launch/tpu.sh [options] NAME ZONE ACCELERATOR CONFIG [arguments]"

spot='' queued='' delete='' dry='' version='' restarts=100
project=() extra=()
while [ $# -gt 0 ]; do
  case $1 in
    --spot | --preemptible) spot=$1 ;;
    --queued) queued=yes ;;
    --delete) delete=yes ;;
    --dry-run) dry=yes ;;
    --help) sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0"; exit ;;
    --restarts | --version | --project | --create)
      [ $# -ge 2 ] || refuse "$1 needs a value; $usage"
      case $1 in
        --restarts) restarts=$2 ;;
        --version) version=$2 ;;
        --project) project=(--project="$2") ;;
        --create) extra+=("$2") ;;
      esac
      shift ;;
    -*) refuse "there is no option $1; launch/tpu.sh --help lists them" ;;
    *) break ;;
  esac
  shift
done
[ $# -ge 4 ] || refuse "got '$*'; $usage"
name=$1 zone=$2 accelerator=$3
shift 3
case $restarts in
  '' | *[!0-9]*) refuse "--restarts is '$restarts'; it must be a number" ;;
esac
poll=${KD_JAX_POLL:-30}

case $accelerator in # its software, and its chips or cores on one host
  v[234]-[0-9]*) default=tpu-ubuntu2204-base host=8 ;;
  v5litepod-[0-9]*) default=v2-alpha-tpuv5-lite host=8 ;;
  v5p-[0-9]*) default=v2-alpha-tpuv5 host=8 ;;
  v6e-[0-9]*) default=v2-alpha-tpuv6e host=8 ;;
  *)
    refuse "there is no accelerator $accelerator; there are v2-8, v3-8, v4-8," \
      "v5litepod-8, v5p-8, v6e-8 and larger ones" ;;
esac
version=${version:-$default}

workdir='' before=''
for argument in "$@"; do
  [ "$before" != --workdir ] || workdir=$argument
  case $argument in --workdir=*) workdir=${argument#*=} ;; esac
  before=$argument
done
case $workdir in
  gs://* | s3://*) ;;
  *)
    fix="add --workdir gs://BUCKET/FOLDER after the config"
    if [ -n "$spot" ]; then
      refuse "with $spot the disk of the TPU VM, and ${workdir:-runs/...} on" \
        "it, may be lost at any time; $fix"
    elif [ "${accelerator##*-}" -gt "$host" ]; then
      refuse "$accelerator has several hosts, which must share the workdir;" \
        "$fix"
    fi ;;
esac

cd "$(dirname "$0")/.." || exit 1
commit=$(git rev-parse --verify --quiet HEAD) ||
  refuse "$PWD is no git checkout with a commit, and a commit is what it copies"
[ -z "$(git status --porcelain --untracked-files=no 2>/dev/null)" ] ||
  say "uncommitted changes are left out; commit $commit runs"
[ -n "$dry" ] || command -v gcloud >/dev/null ||
  refuse "there is no gcloud; install the Google Cloud CLI and log in"

archive=${TMPDIR:-/tmp}/kd_jax-$commit.tar.gz

run() { # a command; with --dry-run it is only printed, quoted for a shell
  local text
  if [ -z "$dry" ]; then
    "$@"
  else
    printf -v text '%q ' "$@"
    printf '%s\n' "${text% }"
  fi
}
tpus() { # group, command, arguments of gcloud
  run gcloud compute tpus "$@" --zone="$zone" --quiet \
    ${project[@]+"${project[@]}"}
}
on() { # worker or all, what its shell is to do
  tpus tpu-vm ssh "$name" --worker="$1" --command="$2" </dev/null
}

describe() { # of the TPU VM: state and kind
  tpus tpu-vm describe "$name" \
    --format='value(state,acceleratorType.basename())'
}
request() { # the state of the queued resource
  tpus queued-resources describe "$name" --format='value(state.state)'
}
create() {
  local group=tpu-vm flags=(--version="$version" ${spot:+"$spot"})
  if [ -n "$queued" ]; then
    group="queued-resources"
    flags=(--runtime-version="$version" --node-id="$name" ${spot:+--spot})
  fi
  tpus "$group" create "$name" --accelerator-type="$accelerator" \
    "${flags[@]}" ${extra[@]+"${extra[@]}"}
}
remove() {
  if [ -n "$queued" ]; then
    tpus queued-resources delete "$name" --force
  else
    tpus tpu-vm delete "$name"
  fi
}
begin() { # CONFIG [arguments]; copies the commit, installs and starts it
  local words
  printf -v words ' %q' "$@"
  run git archive --format=tar.gz --output="$archive" "$commit" &&
    tpus tpu-vm scp "$archive" "$name:kd_jax.tar.gz" --worker=all &&
    on all "mkdir -p kd_jax && tar -xzf kd_jax.tar.gz -C kd_jax \
launch/worker.sh && bash kd_jax/launch/worker.sh install" &&
    on all "bash kd_jax/launch/worker.sh start$words"
}
follow() { # how many lines of worker 0's log are known; the run's status
  on 0 "bash kd_jax/launch/worker.sh follow $1"
}

if [ -n "$dry" ]; then
  [ -z "$queued" ] || request
  describe
  create
  begin "$@"
  follow 0
  [ -z "$delete" ] || remove
  exit
fi

folder=$(mktemp -d) || exit 1
: >"$folder/log"
made='' running='' watcher='' # the TPU is there; the run is; who shows its log

leave() {
  local status=$?
  trap '' TERM INT HUP
  [ -z "$watcher" ] || kill -s TERM -- "-$watcher" 2>/dev/null
  rm -rf "$folder" "$archive"
  [ -n "$made" ] || exit "$status"
  if [ -n "$delete" ]; then
    [ -z "$running" ] || on all 'bash kd_jax/launch/worker.sh stop'
    remove || say "$name may still be there in $zone, and cost; delete it"
  elif [ -n "$running" ]; then
    say "the run goes on at $name; the same command shows it again"
  else
    say "the TPU $name is still there, and costs until it is deleted"
  fi
  exit "$status"
}
trap leave EXIT
trap 'exit 130' INT HUP
trap 'exit 143' TERM

failed() { # what; with gcloud's own line, and what helps
  local line fix=''
  line=$(grep -m 1 ERROR "$folder/error" || grep -m 1 . "$folder/error")
  case $(<"$folder/error") in
    *[Qq]uota*) fix=" Ask for more quota of it, or name another ZONE." ;;
    *capacity* | *RESOURCE_EXHAUSTED*)
      fix=" Try --queued, or name another ZONE." ;;
    *PERMISSION_DENIED* | *credential* | *'active account'*)
      fix=" Run gcloud auth login, or name the --project." ;;
  esac
  say "$1: ${line:-gcloud says nothing}$fix"
  exit 1
}

look() { # describe or request; prints nothing if there is none
  local tries=1
  # What was there before is only out of reach, as a laptop that slept is.
  [ -z "$made" ] || tries=20
  until "$1" 2>"$folder/error"; do
    if grep -q NOT_FOUND "$folder/error"; then return; fi
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || failed "cannot look at $name"
    sleep "$poll"
  done
}

state() { # of the TPU VM
  local found kind
  found=$(look describe) || exit
  read -r found kind <<<"$found"
  if [ -n "$kind" ] && [ "$kind" != "$accelerator" ]; then
    say "there is a TPU $name in $zone already, a $kind and no $accelerator;" \
      "choose another NAME, or delete that one"
    exit 1
  fi
  printf '%s' "$found"
}

make() { # restarts so far
  say "making $name, a $accelerator in $zone"
  if create 2>"$folder/error"; then
    made=yes
  elif [ "$1" -eq 0 ] || grep -qi quota "$folder/error"; then
    failed "$name cannot be made"
  else
    say "there is none at the moment"
    sleep "$poll"
  fi
}

ready() { # restarts so far; comes back once the TPU is there
  local queue='' found last=''
  while :; do
    [ -z "$queued" ] || queue=$(look request) || exit
    found=$(state) || exit
    [ -z "$queue$found" ] || made=yes
    case $queue:$found in
      *:READY) return ;;
      :) make "$1"; continue ;;
      FAILED:*)
        say "Google has refused the queued resource $name; gcloud compute" \
          "tpus queued-resources describe $name says why"
        exit 1 ;;
      SUSPENDED:* | *:PREEMPTED | *:TERMINATED)
        say "$name is ${found:-$queue}, and made anew"
        remove || { say "$name cannot be deleted"; exit 1; }
        made=''
        continue ;;
      *:STOPPED) tpus tpu-vm start "$name" || exit ;;
    esac
    [ "$queue$found" = "$last" ] || say "waiting: $name is ${found:-$queue}"
    last=$queue$found
    sleep "$poll"
  done
}

watch() { # shows what is new in worker 0's log, with the run's status
  local known
  known=$(wc -l <"$folder/log")
  set -m # a process group of its own, to be ended with this script
  (
    follow "$((known))" | tee -a "$folder/log"
    exit "${PIPESTATUS[0]}"
  ) &
  watcher=$!
  set +m
  wait "$watcher"
  local status=$?
  watcher=''
  return "$status"
}

again=0
while :; do
  ready "$again"
  status=0
  if [ -z "$running" ]; then
    begin "$@"
    status=$?
  fi
  if [ "$status" -eq 0 ]; then
    running=yes
    watch
    status=$?
  fi
  [ "$status" -ne 0 ] || { running=''; say "finished"; exit 0; }
  found=$(state) || exit
  if [ "$found" != READY ]; then
    say "$name is ${found:-gone}"
    running=''
  elif [ -z "$running" ]; then
    say "the run cannot be started on $name (status $status); see above"
    exit 1
  elif [ "$status" -eq 255 ]; then
    say "the connection to $name was lost"
  else
    running=''
    case $status in
      3 | 75 | 134 | 137 | 143) # lost, or stopped and saved
        say "the run was interrupted (status $status)"
        on all 'bash kd_jax/launch/worker.sh stop'
        on all 'bash kd_jax/launch/worker.sh blame'
        [ $? -ne 1 ] || { say "a worker ended with an error"; exit 1; } ;;
      *) say "the run ended with status $status; see above"; exit "$status" ;;
    esac
  fi
  if [ "$again" -ge "$restarts" ]; then
    say "given up after $again restarts; the same command goes on"
    exit "$status"
  fi
  again=$((again + 1))
  say "again, $again of at most $restarts times"
  [ "$found" != READY ] || sleep "$poll"
done
