// The command localkube builds and runs a Kubernetes control plane on loopback,
// with a node whose pods are processes. See "localkube --help".
package main
