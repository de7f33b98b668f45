// Package frames writes and reads the few frames of AMQP 0-9-1 that it takes to ask
// about queues. The client library asks one question of a channel, waits for its
// answer, and spends a system call on each of the two. The protocol lets many
// questions be sent at once: the server answers those of a channel in their order
// (AMQP 0-9-1, 4.7).
//
// The library has the connection, for the log-in and all that concerns it; a Splitter
// takes what answers our questions out of what the library reads.
package frames
