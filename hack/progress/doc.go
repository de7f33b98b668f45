// Package progress shows what a long step is doing and for how long it has been
// doing it, from the first second on: as one line that changes on a terminal,
// and as a line every ten seconds anywhere else, so that a log stays readable.
package progress
