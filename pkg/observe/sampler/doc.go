// Package sampler asks brokers on a schedule: one loop per broker, which reads
// all its queues at once, hands the outcome to a sink and waits for the next
// turn. A broker that fails or hangs costs no other broker anything.
package sampler
