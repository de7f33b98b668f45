// Package launch turns the specification of a pod into a process: command and
// arguments with references expanded, environment and working folder. It refuses
// what a process cannot be.
package launch
