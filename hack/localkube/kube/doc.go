// The program kube is a whole Kubernetes control plane in one binary: etcd,
// kube-apiserver, kube-controller-manager and kubectl, told apart by the name it
// is called by. One binary of four programs shares most of its packages, so that
// it builds in little more time than kube-apiserver alone and takes a third of
// the disk space of four.
//
// It is built and started by the package localkube of the parent folder; nothing
// else imports or releases it.
package main
