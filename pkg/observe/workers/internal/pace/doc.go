// Package pace tells how fast the queues of a broker are served, by what the workers do
// that serve them: how long a task that is sent now will wait, and how much work there
// is. It is pure.
package pace
