// Package eventually waits for a state, for tests: it asks again and again, and fails the
// test if the state is not reached in time. Only a failing test waits that long.
package eventually
