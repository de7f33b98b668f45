// Package process starts child processes that do not outlive their parent. Each
// child leads a process group of its own, so that a Ctrl-C at the terminal does
// not reach it and its descendants can be killed with it, and is killed by the
// kernel when the parent dies. It works on Linux only.
package process
