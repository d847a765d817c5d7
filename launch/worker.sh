#!/usr/bin/env bash
# What launch/tpu.sh does on each worker; it runs there, from its home folder.
#
#   launch/worker.sh install                   unpack kd_jax.tar.gz, install
#   launch/worker.sh start CONFIG [arguments]  start kd_jax.main, and return
#   launch/worker.sh follow [LINES]            show its log, but for the first
#                                              LINES; ends with its status
#   launch/worker.sh stop                      let it save and end
#   launch/worker.sh blame                     its last line and status 1, if it
#                                              ended with an error of its own
#
# A run outlives the connection that started it. `start` while one is going on
# changes nothing.
#
# PYTHON  interpreter that has all packages already: nothing is installed
set -u

home=$HOME/kd_jax
log=$home/log pid=$home/pid ended=$home/status

refuse() {
  printf 'launch/worker.sh: %s\n' "$*" >&2
  exit 2
}
alive() { [ -s "$pid" ] && kill -0 "$(<"$pid")" 2>/dev/null; }

install() {
  local source=$home/source python=$home/venv/bin/python ready
  if alive; then return; fi # it needs what is there
  mkdir -p "$source"
  # A workdir on this disk, runs/..., stays.
  find "$source" -mindepth 1 -maxdepth 1 ! -name runs -exec rm -rf {} +
  tar -xzf "$HOME/kd_jax.tar.gz" -C "$source" ||
    refuse "kd_jax.tar.gz cannot be unpacked on $(hostname); see above"
  [ -z "${PYTHON:-}" ] || return 0
  ready=$home/venv/ready-$(cat "$source"/requirements*.txt | cksum | tr ' ' -)
  if [ -e "$ready" ]; then return; fi
  # Images of TPU VMs come with Python 3.10; uv brings a newer one.
  if
    python3 -m pip install --quiet --user 'uv>=0.8' &&
      python3 -m uv venv --quiet --allow-existing --python 3.12 "$home/venv" &&
      python3 -m uv pip install --quiet --python "$python" \
        --requirement "$source/requirements-tpu.txt"
  then
    : >"$ready"
  else
    refuse "requirements-tpu.txt cannot be installed on $(hostname); see above"
  fi
}

start() {
  if alive; then
    echo "launch/worker.sh: a run is going on already; its log follows" >&2
    return
  fi
  rm -f "$ended"
  : >"$log"
  cd "$home/source" || refuse "nothing is installed in $home"
  # In a session of its own, which a lost connection does not end. Written to a
  # file that is then moved, so that no half of a status is ever read.
  # shellcheck disable=SC2016 # is for the inner shell
  KD_JAX_STOP_STATUS=75 setsid nohup bash -c '
    trap "asked=yes; kill -s TERM \$!" TERM
    "$@" & wait "$!"; status=$?
    while [ -n "${asked:-}" ]; do asked=; wait "$!"; status=$?; done
    echo "$status" >"$0.new"; mv "$0.new" "$0"
  ' "$ended" "${PYTHON:-$home/venv/bin/python}" -m kd_jax.main --config "$@" \
    >>"$log" 2>&1 </dev/null &
  echo "$!" >"$pid"
}

follow() {
  local lines=$(($1 + 1)) seen
  [ -e "$log" ] || refuse "nothing was started on $(hostname)"
  while :; do
    alive
    local over=$? # before the log is read: nothing comes after that
    seen=$(wc -l <"$log")
    [ "$seen" -lt "$lines" ] || sed -n "$lines,${seen}p" "$log"
    lines=$((seen + 1))
    [ "$over" -eq 0 ] || break
    sleep "${KD_JAX_POLL:-1}"
  done
  [ -s "$ended" ] || return 137 # killed, as when a machine starts anew
  return "$(<"$ended")"
}

stop() {
  local tenths=1200 # for saving; then it is killed
  alive || return 0
  kill -s TERM "$(<"$pid")"
  while alive && [ "$tenths" -gt 0 ]; do
    sleep 0.1
    tenths=$((tenths - 1))
  done
  kill -s KILL -- "-$(<"$pid")" 2>/dev/null
  return 0
}

blame() {
  case $(cat "$ended" 2>/dev/null) in
    1 | 2)
      printf '%s: %s\n' "$(hostname)" "$(tail -n 1 "$log")"
      return 1 ;;
  esac
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
  install) install ;;
  start) start "$@" ;;
  follow) follow "${1:-0}" ;;
  stop) stop ;;
  blame) blame ;;
  *) refuse "got '$command'; there are install, start, follow, stop, blame" ;;
esac
