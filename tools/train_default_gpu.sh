#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The default weights from nothing on a machine with a GPU, torch, numpy, safetensors and pyyaml, and nothing installed.
#
#   tools/train_default_gpu.sh OUT [MINUTES_OF_TRAINING=22] [SECONDS_OF_THIS_CALL=540]
#
# The run lives outside the source tree and outlives this call: where a call may only last a few minutes, call it again
# with the same OUT until it says `finished`. Every call leaves in OUT: the newest weights (fp16, one file below 16 MiB,
# and its config.json), log.jsonl, curve.png, train.log.
set -euo pipefail
[[ $# -ge 1 ]] || { sed -n '5p' "$0"; exit 2; }
out=$1 minutes=${2:-22} call=${3:-540}
root=$(cd "$(dirname "$0")/.." && pwd)
run=${OMNISTREAM_RUN:-${XDG_CACHE_HOME:-$HOME/.cache}/omnistream/train-default}
python=${PYTHON:-python3}
live=${OMNISTREAM_LIVE:-omnistream_sim.worlds.clips:open_clips}
export PYTHONPATH="$root/ros2_ws/src/omnistream:$root/training:$root/sim_eval${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
mkdir -p "$run" "$out"
touch "$run/train.log"

alive() { [[ -f "$run/pid" ]] && kill -0 "$(cat "$run/pid")" 2>/dev/null; }
if ! alive && [[ ! -f "$run/finished" ]]; then
  # A session of its own: it goes on when this call returns.
  setsid bash -c '"$0" -m omnistream_training.default_run "$1" "$2" "$3" && touch "$1/finished"' \
    "$python" "$run" "$minutes" "$live" >>"$run/train.log" 2>&1 </dev/null &
  echo $! >"$run/pid"
fi
end=$((SECONDS + call))
while alive && ((SECONDS < end)); do sleep 2; done
for file in weights/model.safetensors weights/config.json log.jsonl curve.png train.log config.yaml; do
  [[ -f "$run/$file" ]] && cp "$run/$file" "$out/"
done
tail -n 5 "$run/train.log"
if [[ -f "$run/finished" ]]; then
  echo finished
elif alive; then
  echo "still training; call again"
else
  echo "stopped without finishing; see train.log, call again to go on"
  exit 1
fi
