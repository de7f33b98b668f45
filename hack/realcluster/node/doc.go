// The program node is what Kubernetes runs on a node, and the scheduler, in one binary:
// kubelet, kube-proxy and kube-scheduler, told apart by the name it is called by. It is
// apart from the local control plane's program, so that only those build it who run a
// real cluster.
//
// It is built and started by the package realcluster of the parent folder; nothing else
// imports or releases it.
package main
