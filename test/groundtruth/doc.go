// Package groundtruth compares what the drivers say of a queue with what is true of
// it: hundreds of tasks, real Celery workers, a record of what they did, and the
// workers' own word for what they hold.
//
// While nothing moves, the numbers must be exactly the truth. While tasks run,
// every sample must keep within bounds that follow from what the record said
// just before and just after it, see flow.
package groundtruth
