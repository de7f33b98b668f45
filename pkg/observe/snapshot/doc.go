// Package snapshot remembers the latest observation of every queue of every
// broker, how old it is, and why it is missing where it is missing.
//
// A broker's sampling loop writes samples of all its queues, its lookout that
// messages have arrived in some. Any number of readers get an immutable view and
// never wait for a writer or a broker. Three kinds of not knowing are kept apart:
// never sampled, stale, and a queue that is not known at all; none of them ever
// reads as zero.
package snapshot
