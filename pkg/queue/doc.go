// Package queue holds the words that every other package speaks: which broker,
// which queue, how many messages, how old that knowledge is, and whether it is
// knowledge at all. It does no I/O and imports the standard library alone.
package queue
