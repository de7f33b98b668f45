// The command localkube-build makes sure that the programs of the local control
// plane are there, as "localkube build" does, and prints the folder that they are
// in. It imports no Kubernetes package, so that "go run" compiles it in seconds on
// a bare machine, and the first minutes' work is shown as progress, not as a
// silent compiler.
package main
