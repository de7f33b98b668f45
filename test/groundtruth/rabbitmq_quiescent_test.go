package groundtruth_test

import (
	"testing"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// What is true of Redis is true of RabbitMQ, but that the server itself hands a
// worker as many messages as it may have, whether the worker reads them or not.
func rabbitNumbersAreTheTruth(t *testing.T, s setup) {
	numbersAreTheTruth(t, s, rabbitQuiescences())
}

func rabbitQuiescences() map[string]quiescence {
	ranked := servers.CeleryQueue{Name: "celery", Arguments: map[string]any{"x-max-priority": 10}}
	return map[string]quiescence{
		"solo, late ack": {
			orders: hundred(), idle: celeryHolds(100, 0), busy: celeryHolds(96, 4), executing: 1, solo: true,
			workers: []servers.WorkerOptions{{Pool: "solo", Concurrency: 1, LateAck: true, Prefetch: 4}},
		},
		"solo, early ack: what executes is in flight all the same": {
			orders: hundred(), idle: celeryHolds(100, 0), busy: celeryHolds(96, 4), executing: 1, solo: true,
			workers: []servers.WorkerOptions{{Pool: "solo", Concurrency: 1, Prefetch: 4}},
		},
		"priorities: the highest number goes first": {
			setup:  setup{declared: []servers.CeleryQueue{ranked}},
			orders: []servers.CeleryTask{{N: 30}, {N: 30, Priority: new(3)}, {N: 20, Priority: new(6)}, {N: 20, Priority: new(9)}},
			idle:   celeryHolds(100, 0), busy: celeryHolds(92, 8), executing: 2, first: 20,
			workers: []servers.WorkerOptions{{LateAck: true, Prefetch: 4}},
		},
		"quorum, late ack, prefetch 1": {
			setup:  setup{declared: quorumQueues()},
			orders: hundred(), idle: celeryHolds(100, 0), busy: celeryHolds(98, 2), executing: 2,
			workers: []servers.WorkerOptions{{LateAck: true, Prefetch: 1}},
		},
		"quorum, late ack, prefetch 4": {
			setup:  setup{declared: quorumQueues()},
			orders: hundred(), idle: celeryHolds(100, 0), busy: celeryHolds(92, 8), executing: 2,
			workers: []servers.WorkerOptions{{LateAck: true, Prefetch: 4}},
		},
	}
}
