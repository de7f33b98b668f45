// Package record reads what the tasks and the producer of a playground write down.
package record
