#!/usr/bin/env bash
# Runs a config in N processes on this machine, as N machines would.
#
#   launch/local.sh N CONFIG[:variant] [more arguments of kd_jax.main]
#
# With --dry-run before N it prints the commands and runs none; --help prints
# this.
#
# Process 0 writes to the terminal, the lines of the others start with [1] ...
# SIGTERM and Ctrl-C are passed on: all save at the same step and end with
# status 0; a second one ends them at once. When a process dies, the others are
# ended, and one line says which one it was.
#
# GPUs are shared out evenly, in order: of 4, two processes get 0,1 and 2,3. A
# number of GPUs that does not split is refused, since all processes have to
# take equal shares of a batch; so are fewer GPUs than processes.
#
# PYTHON                      interpreter, default: python
# CUDA_VISIBLE_DEVICES        the GPUs to share out, default: all
# KD_JAX_DEVICES_PER_PROCESS  simulate so many CPU devices in each process
set -u

say() { printf 'launch/local.sh: %s\n' "$*" >&3; }
refuse() { say "$*"; exit 2; }
exec 3>&2

dry=''
case ${1:-} in
  --help) sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0"; exit ;;
  --dry-run) dry=yes; shift ;;
esac
count=${1:-}
case $count in
  '' | *[!0-9]* | 0)
    refuse "got '$*'; usage: launch/local.sh N CONFIG [arguments], N >= 1" ;;
esac
[ $# -ge 2 ] || refuse "no config; usage: launch/local.sh N CONFIG [arguments]"
shift

python=${PYTHON:-python}
command -v "$python" >/dev/null || refuse "there is no $python; set PYTHON"
port=29500 # any that is free, if it is to be used
[ -n "$dry" ] || port=$("$python" -c 'import socket
with socket.socket() as s:
  s.bind(("127.0.0.1", 0))
  print(s.getsockname()[1])') || refuse "$python cannot find a free port"
export KD_JAX_COORDINATOR=127.0.0.1:$port KD_JAX_PROCESSES=$count

gpus=()
if [ -n "${KD_JAX_DEVICES_PER_PROCESS:-}" ]; then
  flag=--xla_force_host_platform_device_count=$KD_JAX_DEVICES_PER_PROCESS
  export JAX_PLATFORMS=cpu XLA_FLAGS="${XLA_FLAGS:-} $flag"
elif [ "${JAX_PLATFORMS:-}" != cpu ]; then
  case ${CUDA_VISIBLE_DEVICES-all} in
    '' | -1) ;; # hidden
    all)
      while read -r gpu; do gpus+=("$gpu"); done < <(
        nvidia-smi --list-gpus 2>/dev/null |
          sed -n 's/^GPU \([0-9]*\):.*/\1/p') ;;
    *) IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES" ;;
  esac
fi
share=$((${#gpus[@]} / count))
[ $((share * count)) -eq ${#gpus[@]} ] ||
  refuse "${#gpus[@]} GPUs do not split over $count processes; start another" \
    "number of them, or name fewer GPUs in CUDA_VISIBLE_DEVICES"

show() { # index, arguments of kd_jax.main; what `run` does, as a command
  local text settings=(env "KD_JAX_COORDINATOR=$KD_JAX_COORDINATOR"
    "KD_JAX_PROCESSES=$count" "KD_JAX_PROCESS=$1")
  if [ "$share" -gt 0 ]; then
    local IFS=,
    settings+=("CUDA_VISIBLE_DEVICES=${gpus[*]:$1 * share:share}")
  elif [ -n "${KD_JAX_DEVICES_PER_PROCESS:-}" ]; then
    settings+=("JAX_PLATFORMS=cpu" "XLA_FLAGS=$XLA_FLAGS")
  fi
  shift
  printf -v text '%q ' "${settings[@]}" "$python" -m kd_jax.main --config "$@"
  printf '%s\n' "${text% }"
}
if [ -n "$dry" ]; then
  for ((i = 0; i < count; i++)); do show "$i" "$@"; done
  exit
fi

run() { # index, arguments of kd_jax.main
  export KD_JAX_PROCESS=$1
  if [ "$share" -gt 0 ]; then
    local IFS=,
    export CUDA_VISIBLE_DEVICES="${gpus[*]:$1 * share:share}"
  fi
  shift
  exec "$python" -m kd_jax.main --config "$@"
}

send() { # signal; to the process groups that are left
  local pid
  for pid in "${pids[@]}"; do
    [ -z "$pid" ] || kill -s "$1" -- "-$pid"
  done
} 2>/dev/null
pids=()
signal=TERM
trap 'send $signal; signal=KILL' TERM INT HUP
trap 'send KILL' EXIT

label() { # index; outlives the signals, to pass on the last words
  trap '' TERM INT HUP
  exec sed -u "s/^/[$1] /" >&3
}

labels=()
for ((i = 0; i < count; i++)); do
  if [ "$i" -eq 0 ]; then
    exec 4>&1 5>&2
  else
    exec 4> >(label "$i") 5>&4
    labels+=("$!")
  fi
  set -m # a process group each, so that nothing they start outlives them
  run "$i" "$@" </dev/null >&4 2>&5 4>&- 5>&- &
  pids+=("$!")
  set +m
done
exec 4>&- 5>&-
exec 2>/dev/null # bash's own remarks about killed jobs

# Whether a process only failed because another one was lost: kd_jax.main then
# ends with 3, the coordination service of JAX with 134.
lost() { [ "$1" -eq 3 ] || [ "$1" -eq 134 ]; }

left=$count culprit='' status=0 killed='' patience=30 # tenths of a second
while [ "$left" -gt 0 ]; do
  sleep 0.1
  for ((i = 0; i < count; i++)); do
    pid=${pids[i]}
    if [ -z "$pid" ] || kill -0 "$pid"; then continue; fi
    wait "$pid"
    ended=$?
    kill -s KILL -- "-$pid"
    pids[i]='' left=$((left - 1))
    if [ "$ended" -eq 0 ] || [ -n "$killed" ]; then continue; fi
    if [ "$status" -eq 0 ] || { lost "$status" && ! lost "$ended"; }; then
      culprit=$i status=$ended
    fi
  done
  if [ "$status" -ne 0 ]; then patience=$((patience - 1)); fi
  if [ "$patience" -eq 0 ]; then
    killed=yes
    send KILL
  fi
done

[ ${#labels[@]} -eq 0 ] || wait "${labels[@]}"
[ "$status" -ne 0 ] || exit 0
[ "$status" -le 128 ] || cause=" (signal $((status - 128)))"
say "process $culprit of $count ended with status $status${cause:-}; all ended"
exit "$status"
