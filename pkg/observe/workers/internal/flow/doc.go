// Package flow tells from heartbeats how fast workers work: the mean time that a task
// executes, and how many tasks are taken in a second. It is pure.
package flow
