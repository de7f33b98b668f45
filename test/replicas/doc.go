// Package replicas has no code of its own. Its tests run two replicas of celery-hpa, the
// program as it is shipped, with the flags of the manifests, before a real control plane
// with a real HPA and a real Redis: one of them ends at any moment, and both are of
// different versions.
//
// Loopback has neither kubelet nor kube-proxy. What stands for them is stated in
// entrance_test.go and ends_test.go: connections go to one replica by chance, also to
// one that is dead or ends, for as long as a node may take to hear of it.
package replicas
