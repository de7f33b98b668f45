#!/usr/bin/env bash
# Builds what a real cluster on this machine is made of, into the folder realcluster of
# the cache folder. Root is needed, and what "setup.sh cluster" installs.
#
#   check      says what this machine lacks for a cluster, and fails if it lacks something
#   programs   containerd, kubelet, kube-proxy, kube-scheduler
#   base       the images of pods that are not celery-hpa's, and the builder's base image
#   image      celery-hpa's, from the Dockerfile
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${CELERY_HPA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/celery-hpa}/realcluster
bin=$cache/bin
images=$cache/images

export CGO_ENABLED=0
export GOFLAGS='-trimpath -buildvcs=false -gcflags=all=-dwarf=false'
export BUILDAH_ISOLATION=chroot
export CONTAINERS_CONF=$cache/containers.conf

# Images and settings are apart from those of whoever uses buildah on this machine.
b() {
  [[ -e $CONTAINERS_CONF ]] || printf '[network]\nnetwork_config_dir = "%s"\n' "$cache/networks" >"$CONTAINERS_CONF"
  buildah --root "$cache/storage" --runroot "$cache/run" --storage-driver overlay "$@"
}

# free FOLDER is how much more the file system takes that the folder is on, or will be, in
# MB.
free() {
  local folder=$1
  while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
  df --output=avail --block-size=1M "$folder" | tail -n 1
}

# enclose does what the enclosure and containerd do with the kernel.
enclose() {
  local folder status=0
  folder=$(mktemp -d)
  mkdir "$folder/upper" "$folder/work"
  unshare --net --mount --pid --ipc --fork \
    mount -t overlay overlay -o "lowerdir=/etc,upperdir=$folder/upper,workdir=$folder/work" /etc || status=$?
  rm -rf "$folder"
  return "$status"
}

# can_group makes a cgroup, of whatever version, where the kubelet makes those of pods.
can_group() {
  local root=/sys/fs/cgroup
  [[ -e $root/cgroup.controllers ]] || root=$root/pids
  mkdir "$root/celery-hpa-check-$$" && rmdir "$root/celery-hpa-check-$$"
}

# check asks for the disk that Go's build cache, the images and a run fill, in MB: for a run
# alone once all is built.
check() {
  local missing=() why needed=8000
  [[ ! -e $cache/base ]] || needed=2000
  if [[ $(uname -s) != Linux ]]; then
    missing+=("Linux: this is $(uname -s)")
  elif [[ $(id -u) != 0 ]]; then
    missing+=("root: this is $(id -un)")
  else
    command -v apt-get >/dev/null || missing+=("apt-get, which installs buildah, runc and others")
    why=$(enclose 2>&1) || missing+=("the right to make namespaces and to mount in them: $why")
    why=$(can_group 2>&1) || missing+=("the right to make cgroups: $why")
    why=$(free "$cache")
    ((why >= needed)) || missing+=("$needed MB of disk for $cache: $why are free")
  fi
  ((${#missing[@]} > 0)) || return 0
  echo "A whole cluster on this machine needs root on Linux (Debian or Ubuntu) and $needed MB of disk. Missing here:" >&2
  printf '  %s\n' "${missing[@]}" >&2
  return 1
}

programs() {
  mkdir -p "$bin"
  local version name
  version=$(go list -C "$here/node" -m -f '{{.Version}}' k8s.io/kubernetes)
  name=k8s.io/component-base/version
  go build -C "$here/node" -ldflags "-s -w -X $name.gitVersion=$version -X $name.gitTreeState=clean" -o "$bin/node" .
  for name in kubelet kube-proxy kube-scheduler; do
    ln -sfn node "$bin/$name"
  done
  name=github.com/containerd/containerd/v2/cmd
  go build -C "$here/containerd" -tags no_btrfs,no_zfs,no_devmapper -ldflags '-s -w' -o "$bin/" \
    "$name/containerd" "$name/containerd-shim-runc-v2" "$name/ctr"
}

# export_image NAME writes the image localhost/NAME for "ctr images import".
export_image() {
  local archive=${1%:test}
  archive=$images/${archive/:/-}.tar
  mkdir -p "$images"
  rm -f "$archive.part"
  b push --quiet --disable-compression "localhost/$1" "oci-archive:$archive.part:localhost/$1"
  mv "$archive.part" "$archive"
}

pause() {
  go build -C "$root" -ldflags '-s -w' -o "$cache/pause" ./hack/realcluster/pause
  local container
  container=$(b from scratch)
  b copy --quiet "$container" "$cache/pause" /pause
  b config --entrypoint '["/pause"]' --user 65535:65535 "$container"
  b commit --quiet --rm "$container" localhost/pause:test
  export_image pause:test
}

# rootfs FOLDER fills a folder with this machine's distribution, its Python and Redis, and
# what the builder needs besides Go. What is mounted there meanwhile is mounted for debootstrap
# alone, and so does not outlive it.
rootfs() {
  local packages=ca-certificates,python3,redis-server codename mirror
  [[ $(cat "$1.packages" 2>/dev/null) != "$packages" ]] || return 0
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  # shellcheck disable=SC2016 # apt-get fills it in, not the shell
  mirror=$(apt-get indextargets --format '$(SITE)' | head -n 1)
  rm -rf "$1" "$1.packages"
  unshare --mount debootstrap --variant=minbase --include="$packages" "$codename" "$1" "$mirror"
  rm -rf "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*
  echo "$packages" >"$1.packages"
}

# celery adds the Celery of the tests to that, in a virtual environment of the
# distribution's Python, which is the same here and in the image.
celery() {
  local container
  /usr/bin/python3 -m venv --clear "$cache/celery"
  "$cache/celery/bin/python" -m pip --disable-pip-version-check install --quiet --retries 2 \
    --only-binary :all: --require-hashes --requirement "$root/hack/setup/requirements.txt"
  container=$(b from scratch)
  b copy --quiet "$container" "$cache/rootfs" /
  b copy --quiet "$container" "$cache/celery" /opt/celery
  b config --env PATH=/opt/celery/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  b commit --quiet --rm "$container" localhost/celery:test
  export_image celery:test
}

# builder makes the base image that the Dockerfile names, which no registry is asked for.
# It compiles with the flags of the Makefile, and so takes what is compiled already from
# the cache.
builder() {
  local container
  container=$(b from --pull-never localhost/celery:test)
  b copy --quiet "$container" "$(go env GOROOT)" /usr/local/go
  b copy --quiet "$container" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
  b config --env PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin --env GOPATH=/go \
    --env GOCACHE=/go/cache --env GOPROXY="$(go env GOPROXY)" --env GOFLAGS="$GOFLAGS" "$container"
  b commit --quiet --rm "$container" "$(sed -n 's/^ARG GO_IMAGE=//p' "$root/Dockerfile")"
}

# base is done once for each version of this script, of Celery and of Go.
base() {
  local done_for
  done_for=$({ cat "${BASH_SOURCE[0]}" "$here/pause/main.go" "$root/hack/setup/requirements.txt" "$root/Dockerfile" && go version; } | sha256sum)
  [[ $(cat "$cache/base" 2>/dev/null) != "$done_for" ]] || return 0
  mkdir -p "$cache"
  b rm --all >/dev/null # what is left of a run that was interrupted
  rootfs "$cache/rootfs"
  pause
  celery
  builder
  echo "$done_for" >"$cache/base"
}

# image builds celery-hpa's image twice, for an upgrade from one to the other.
image() {
  local version
  for version in previous test; do
    b build --quiet --pull-never --network host --build-arg VERSION="$version" --tag "localhost/celery-hpa:$version" \
      --volume "$(go env GOMODCACHE):/go/pkg/mod" --volume "$(go env GOCACHE):/go/cache" "$root"
    export_image "celery-hpa:$version"
  done
  b rmi --prune >/dev/null # those of earlier builds
}

case ${1:-} in
check | programs | base | image) "$1" ;;
*)
  echo 'usage: build.sh check|programs|base|image' >&2
  exit 2
  ;;
esac
