// Package simulation takes a fleet of Celery workers to zero and back some ten thousand
// times, in minutes, through faults that no real server produces on demand.
//
// What decides, acts and remembers counts is the program's own code: packages idle,
// zeroscaler, target and snapshot. Everything around it is a model: broker, workers, API
// server, HPA, people, and the replicas of celery-hpa with what they hear. A schedule is
// all that happens in one such world. It follows from a number, its seed, so that each can
// be had again:
//
//	go test ./test/simulation -run Seed -seed 4711
//
// Nothing waits for a real clock. A world has a list of events in the order of their
// times; whoever calls another waits as a coroutine while other events happen. One
// goroutine runs at a time, so that the same seed gives the same transcript.
//
// world_test.go has the clock, schedule_test.go what is random, invariants_test.go what
// must hold.
package simulation
