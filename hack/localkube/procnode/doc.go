// Package procnode is a node whose pods are processes: a stand-in for the kubelet
// that needs no container runtime. It registers a Node, takes pods that have no
// node or name this one, runs the first container's command as a child process,
// and ends it as a kubelet would: SIGTERM to the main process, the grace period,
// SIGKILL to all of it. Every start, signal and exit is on record (Events), so
// that a test can prove that nothing was killed.
//
// What a process cannot be is refused, by failing the pod with a message: several
// containers, init containers, volumes, life-cycle hooks, and environment
// variables from ConfigMaps, Secrets or resources. Images and probes are ignored:
// a pod is Ready as soon as its process runs.
package procnode
