#!/usr/bin/env bash
# Installs what tests and demo run beside our own code: redis-server,
# rabbitmq-server and prometheus from the distribution, and a pinned Celery in a
# virtual environment of its own. What is there already is left alone, so that a
# second run takes under a second. With the argument "demo" it leaves out what the
# demo does without; with "lint" it installs the linters of shell and YAML instead,
# with "cluster" what a real cluster is made of. Without the rights to install it says
# what to install, and fails.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${CELERY_HPA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/celery-hpa}
requirements=$here/requirements.txt
oldest_python=3.10 # of the versions that requirements.txt has hashes for
log=$(mktemp)
child=
held_back=()

# The step that runs is a background job, which a shell protects from Ctrl-C.
clean_up() {
  [[ -z $child ]] || kill "$child" 2>/dev/null || true
  let_go
  rm -f "$log"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

fail() {
  printf 'setup: %s\n' "$@" >&2
  exit 1
}

# step TITLE COMMAND... runs the command and shows, at once and every ten
# seconds, for how long; its output is shown only by show_log.
step() {
  local title=$1 started=$SECONDS shown=$SECONDS
  shift
  echo "$title: …"
  "$@" >"$log" 2>&1 </dev/null &
  child=$!
  while kill -0 "$child" 2>/dev/null; do
    sleep 0.1
    if ((SECONDS - shown >= 10)); then
      shown=$SECONDS
      echo "$title: $((SECONDS - started))s"
    fi
  done
  local status=0
  wait "$child" || status=$?
  child=
  echo "$title: $( ((status)) && echo failed || echo "done") in $((SECONDS - started))s"
  return "$status"
}

show_log() { tail -n 20 "$log" | sed 's/^/    /' >&2; }

# at_least HAVE WANT compares versions.
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

check_go() {
  local want have
  want=$(awk '$1 == "go" {print $2; exit}' "$root/go.mod")
  command -v go >/dev/null ||
    fail "Go $want or newer is needed and there is none in PATH: see https://go.dev/doc/install"
  have=$(go env GOVERSION)
  at_least "${have#go}" "$want" ||
    fail "Go $want or newer is needed, this is ${have#go}: see https://go.dev/doc/install"
}

can_install() { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; }

# explain PACKAGE... says how somebody with the rights installs the packages.
explain() {
  if command -v apt-get >/dev/null; then
    fail "not root, so nothing was installed. Run this, then the same again:" \
      "  sudo apt-get install --no-install-recommends $*"
  fi
  fail "this installs on Debian and Ubuntu only. Install these or their equals, then run the same again:" \
    "  redis-server 6 or newer, rabbitmq-server 3.9 or newer with its management plugin," \
    "  prometheus 2.42 or newer with promtool (the tests alone)," \
    "  Python $oldest_python or newer with its venv module (there: $*)"
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 \
    install --yes --no-install-recommends "$@"
}

# install_packages PACKAGE... looks for fresh package lists only if it has to.
install_packages() {
  can_install || explain "$@"
  step "installing $*" apt_install "$@" && return
  step "reading the package lists" apt-get update || true
  step "installing $*" apt_install "$@" && return
  show_log
  fail "apt-get could not install $*: see above, put it right, then run the same again"
}

# install_server PACKAGE UNIT... installs what starts its units where systemd
# runs, and from then on at every boot. Nobody asked for a server on the default
# port: hold them back, then leave them disabled. Without systemd the package
# starts nothing.
install_server() {
  local package=$1
  shift
  if [[ ! -d /run/systemd/system ]]; then
    install_packages "$package"
    return
  fi
  can_install || explain "$package"
  held_back=("$@")
  systemctl mask --runtime --quiet "${held_back[@]}"
  install_packages "$package"
  let_go # first: what is masked cannot be disabled
  systemctl disable --quiet "$@"
}

let_go() {
  ((${#held_back[@]} == 0)) || systemctl unmask --runtime --quiet "${held_back[@]}"
  held_back=()
}

# The tests run RabbitMQ's own scripts; those that Debian puts in the PATH of
# root change the user.
has_rabbitmq() {
  [[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] || command -v rabbitmq-server >/dev/null
}

# Erlang's port mapper comes along, as a service too, unless it was there.
install_rabbitmq() {
  local units=(rabbitmq-server.service)
  command -v epmd >/dev/null || units+=(epmd.service epmd.socket)
  install_server rabbitmq-server "${units[@]}"
}

has_prometheus() { command -v prometheus >/dev/null && command -v promtool >/dev/null; }

has_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

check_python() {
  has_venv || install_packages python3 python3-venv
  local have
  have=$(python3 -c 'import platform; print(platform.python_version())')
  at_least "$have" "$oldest_python" ||
    fail "Python $oldest_python or newer is needed, this is $have: put a newer python3 first in PATH"
  has_venv ||
    fail "the python3 in PATH ($(command -v python3)) has no venv module: install it, or put another first in PATH"
}

works() { "$1/bin/python" -c 'import celery, gevent, redis' 2>/dev/null; }

from_index() {
  python3 -m venv --clear "$1" &&
    "$1/bin/python" -m pip --disable-pip-version-check install --quiet --retries 2 \
      --only-binary :all: --require-hashes --requirement "$requirements" &&
    works "$1"
}

# Debian's packages belong to Debian's Python, whatever else PATH puts first.
from_distribution() {
  /usr/bin/python3 -m venv --clear --without-pip --system-site-packages "$1" && works "$1"
}

# install_celery FOLDER leaves a folder that is not "ready" to the next run.
install_celery() {
  step "installing the pinned Celery" from_index "$1" && return
  show_log
  if grep -q 'DO NOT MATCH THE HASHES' "$log"; then
    fail "a package is not the one that $requirements pins: find out why before going on"
  fi
  echo "the pinned Celery could not be installed: taking the distribution's instead"
  install_packages python3 python3-celery python3-gevent python3-redis
  from_distribution "$1" ||
    fail "the distribution's Celery does not run either: make the package index reachable, then run the same again"
}

# The folder is named after the pinned versions, as setup.go in this folder
# names it: another checkout with other versions has another folder.
ensure_celery() {
  local key folder
  key=$(sha256sum "$requirements" | cut -c1-12)
  folder=$cache/celery/$key
  [[ ! -e $folder/ready ]] || ! works "$folder" || return 0
  mkdir -p "$cache/celery"
  exec 9>"$folder.lock"
  flock 9 # of several at once, the others find it ready
  [[ ! -e $folder/ready ]] || ! works "$folder" || return 0
  check_python
  install_celery "$folder"
  touch "$folder/ready"
}

ensure_linters() {
  local tool
  for tool in shellcheck yamllint; do
    command -v "$tool" >/dev/null || install_packages "$tool"
  done
}

# A real cluster needs root, and so does installing what it needs.
ensure_cluster() {
  check_go
  local missing=() package
  for package in runc buildah debootstrap containernetworking-plugins nftables conntrack iproute2 python3 python3-venv; do
    dpkg-query --show --showformat '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
  done
  ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
}

case ${1:-} in
lint) ensure_linters ;;
cluster) ensure_cluster ;;
'' | demo)
  check_go
  command -v redis-server >/dev/null || install_server redis-server redis-server.service
  has_rabbitmq || install_rabbitmq
  [[ ${1:-} == demo ]] || has_prometheus || install_server prometheus prometheus.service
  ensure_celery
  ;;
*) fail "unknown argument $1: there are only \"demo\", \"lint\" and \"cluster\"" ;;
esac
