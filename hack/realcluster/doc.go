// Package realcluster runs a whole Kubernetes on this machine: the control plane of
// localkube, and a node of containerd, runc, kubelet, kube-proxy and a network of pods.
// It is where the image, the chart, rights, probes and the end of a pod are what they are
// in production; for everything else localkube with its procnode is lighter.
//
// It must run inside an enclosure (see that package), needs root on Linux, and the parts
// that build.sh makes. Pods have no DNS: services are reached by their addresses.
package realcluster
