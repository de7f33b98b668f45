// Package localkube runs a Kubernetes control plane on loopback: etcd,
// kube-apiserver and kube-controller-manager (with the HPA, Deployment,
// ReplicaSet, StatefulSet, ServiceAccount, namespace and garbage-collection
// controllers), with no container runtime and no root rights. Package procnode
// adds a node whose pods are processes.
//
// Tests import it and the command localkube runs it for people. Several clusters
// can run at once; one leaves neither processes nor files behind, not even when
// the process that started it is killed. It works on Linux.
package localkube
