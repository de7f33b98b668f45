// Package lookout watches the queues of targets that sleep, closely: a message that
// arrives must wake somebody at once, and not with the next sample. Where a broker
// tells of writes it is told; elsewhere the queues are read every few hundredths of a
// second. It reads how much waits and nothing else; the samples know the rest, and
// find what a lookout may miss.
package lookout
