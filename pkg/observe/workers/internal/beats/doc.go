// Package beats remembers the latest heartbeats of one worker name, by which several
// workers may go.
package beats
