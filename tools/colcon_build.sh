#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the ROS 2 workspace with colcon under build/colcon and checks that the executables of every package are there.
# Where a ROS 2 installation is sourced: all packages, with its colcon. Otherwise colcon comes from PyPI, and the message
# package is left out, since ament_cmake is part of ROS 2 (`make setup` builds the messages without it).
#
#   PYTHON=/path/to/python3 tools/colcon_build.sh
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
out=$root/build/colcon
mkdir -p "$out"

ignore=()
if [ -z "${ROS_DISTRO:-}" ]; then
  stamp=$out/venv/stamp
  if [ ! -e "$stamp" ] || [ "$root/tools/colcon_requirements.txt" -nt "$stamp" ]; then
    "${PYTHON:-python3}" -m venv "$out/venv"
    "$out/venv/bin/python" -m pip --disable-pip-version-check install --quiet -r "$root/tools/colcon_requirements.txt"
    touch "$stamp"
  fi
  PATH=$out/venv/bin:$PATH
  ignore=(--packages-ignore omnistream_msgs)
  echo "no ROS 2 sourced: building the ament_python packages, without omnistream_msgs (it needs ament_cmake)"
fi

cd "$root/ros2_ws"
colcon --log-base "$out/log" build --base-paths src --build-base "$out/build" --install-base "$out/install" \
  "${ignore[@]}" "$@" 2>"$out/stderr.txt" || {
  cat "$out/stderr.txt" >&2
  exit 1
}

# What `ros2 run` and `ros2 launch` look for: the marker in the ament index and the executables that setup.py names.
status=0
for setup in src/*/setup.py; do
  package=$(basename "$(dirname "$setup")")
  prefix=$out/install/$package
  names=$(sed -n 's/^ *"\([A-Za-z0-9_-]*\) = .*:main",$/\1/p' "$setup")
  for file in "share/ament_index/resource_index/packages/$package" "share/$package/package.xml" \
    $(printf "lib/$package/%s\n" $names); do
    [ "$file" = "lib/$package/" ] || [ -e "$prefix/$file" ] || {
      echo "error: colcon installed no $file for $package" >&2
      status=1
    }
  done
  echo "$package: ${names:-no executables}" | tr '\n' ' ' && echo
done
exit $status
