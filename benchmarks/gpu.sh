#!/usr/bin/env bash
# Everything about speed that only an accelerator can tell, in 10 minutes.
#
#   bash benchmarks/gpu.sh [FOLDER]
#
# Needs the package (pip install -e . "jax[cuda12]"), nothing from a network:
# weights and images are made up. With PyTorch and timm installed, KDEP is
# compared with them (autocast to bfloat16, channels last, torch.compile). Each
# part has its own process and a limit of its own; what it printed is in
# FOLDER/NAME.txt, and a part that failed does not keep the others from running.
# SECONDS_PER_PART scales all limits: 1 is for an H100, 4 is patient.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu}
scale=${SECONDS_PER_PART:-1}
mkdir -p "$out"
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$out/cache}
# Two frameworks share the device in one part.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
failed=()

part() { # name, seconds, module and its arguments
  local name=$1 limit=$(($2 * scale))
  shift 2
  echo "== $name: python -m $*"
  timeout "$limit" python -m "$@" 2>&1 | tee "$out/$name.txt"
  local status=${PIPESTATUS[0]}
  [ "$status" = 0 ] || failed+=("$name ($status)")
}

# Arguments of all parts may be made small: TINY=1 checks the script on a CPU.
if [ -n "${TINY:-}" ]; then
  step=(--batch 2 --size 32 --steps 1 --rounds 1)
  nets=(--teacher resnet18 --student resnet18)
  sweep=(--size 32 --batches 2 --steps 1 --rounds 1 --sides 256 --teacher
    resnet18 --scalekd-teacher swin_tiny_patch4_window7_224 --heads 3 6)
  bank=(--teachers resnet18 --size 32 --batch 8 --crops 1 --seconds 1
    --rounds 1 --steps 1 --images 8)
  input=(--count 8 --seconds 0.2 --rounds 1)
  dtype=(--teacher resnet18)
else
  step=(--batch 256 --size 224 --steps 20 --rounds 5)
  nets=(--teacher resnet50 --student resnet18)
  sweep=(--minutes 3)
  bank=(--batch 256 --steps 10 --rounds 3)
  input=(--seconds 1 --rounds 5)
  dtype=(--teacher resnet50)
fi

part smoke 60 kd_jax.main --config configs/kdep_r18.py:smoke \
  --workdir "$out/smoke"
part kdep 120 benchmarks.kdep_step "${step[@]}" "${nets[@]}"
part sweep 200 benchmarks.sweep "${sweep[@]}"
part bank 100 benchmarks.bank_loop "${bank[@]}"
part input 60 benchmarks.input "${input[@]}"
part dtype 40 benchmarks.teacher_dtype "${dtype[@]}"

if [ ${#failed[@]} -gt 0 ]; then
  echo "failed or out of time: ${failed[*]}"
  exit 1
fi
echo "all parts ended; their output is in $out/"
