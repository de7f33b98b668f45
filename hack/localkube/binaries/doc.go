// Package binaries provides the programs of the local control plane (etcd,
// kube-apiserver, kube-controller-manager and kubectl): those of the machine
// where all four are present and recent enough, else its own, which it builds
// once from Go modules and keeps in the user's cache folder.
package binaries
