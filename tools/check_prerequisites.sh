#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks what `make setup` needs from the machine and prints the Python to use on standard output. When something is
# missing it prints the line for apt on standard error and exits with status 1. Installs nothing, needs no root.
#
#   PYTHON=/path/to/python3.12 tools/check_prerequisites.sh      # take this interpreter, do not search
set -euo pipefail

supported="3.11 3.12"
packages=()   # what apt has to install
notes=()      # what apt cannot solve

# Which of the supported versions this distribution carries; empty when none.
distribution_python() {
  local codename=""
  [ -r /etc/os-release ] && codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  case "$codename" in
    bookworm | jammy) echo 3.11 ;;
    noble) echo 3.12 ;;
  esac
}

# Prints "major.minor header(yes|no) venv(yes|no) path" of an interpreter, or nothing when it does not run. A name on the
# PATH proves little: version managers put stand-ins there for interpreters that are not installed.
inspect() {
  "$1" - <<'PY' 2>/dev/null || true
import importlib.util, os, sys, sysconfig
header = os.path.isfile(os.path.join(sysconfig.get_paths()["include"], "Python.h"))
venv = all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))
print("%d.%d" % sys.version_info[:2], "yes" if header else "no", "yes" if venv else "no", sys.executable)
PY
}

find_python() {
  local candidate version header venv path partial=""
  local candidates=("python3" "python3.11" "python3.12" "/usr/bin/python3" "/usr/bin/python3.11" "/usr/bin/python3.12")
  [ -n "${PYTHON:-}" ] && candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    read -r version header venv path < <(inspect "$candidate") || continue
    case " $supported " in *" $version "*) ;; *) continue ;; esac
    if [ "$header$venv" = yesyes ]; then
      python=$path
      return
    fi
    # Right version, incomplete: remember the first one, and ask for its missing parts if nothing better turns up.
    if [ -z "$partial" ]; then
      partial=$candidate
      missing_parts=()
      [ "$header" = yes ] || missing_parts+=("python$version-dev")
      [ "$venv" = yes ] || missing_parts+=("python$version-venv")
    fi
  done
  if [ -n "$partial" ]; then
    packages+=("${missing_parts[@]}")
  elif [ -n "${PYTHON:-}" ]; then
    notes+=("PYTHON=$PYTHON is not a Python 3.11 or 3.12 that runs.")
  elif version=$(distribution_python) && [ -n "$version" ]; then
    packages+=("python$version" "python$version-venv" "python$version-dev")
  else
    notes+=("No Python 3.11 or 3.12 found, and this distribution's packages have none. Install one with its headers" \
      "(pyenv, uv or conda do), then: make setup PYTHON=/path/to/python3.12")
  fi
}

python=""
command -v git >/dev/null 2>&1 || packages+=(git)
command -v make >/dev/null 2>&1 || packages+=(make)
command -v g++ >/dev/null 2>&1 || packages+=(g++)
find_python

if [ "$(uname -m)" != x86_64 ] && [ -z "${ROS_DISTRO:-}" ]; then
  echo "note: rclpy from PyPI exists for x86-64 only; on $(uname -m) source a ROS 2 installation for the nodes." >&2
fi
if [ ${#packages[@]} -gt 0 ]; then
  echo "Missing on this machine: ${packages[*]}. On Debian and Ubuntu:" >&2
  echo >&2
  echo "    sudo apt install ${packages[*]}" >&2
  echo >&2
fi
if [ ${#notes[@]} -gt 0 ]; then
  printf '%s\n' "${notes[@]}" >&2
fi
[ -n "$python" ] && [ ${#packages[@]} -eq 0 ] || exit 1
echo "$python"
