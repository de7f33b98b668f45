// Package snapshot remembers the latest observation of every queue of every
// broker, how old it is, and why it is missing where it is missing.
//
// There is one writer per broker (its sampling loop) and any number of readers.
// A reader gets an immutable view and never waits for a writer or a broker.
// Three kinds of not knowing are kept apart: never sampled, stale, and a queue
// that is not known at all; none of them ever reads as zero.
package snapshot
