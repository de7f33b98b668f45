// Package workers remembers what Celery workers say of themselves: whether they
// live, how many tasks they execute, which ones, from which queues. A loop per
// broker hears their heartbeats, and asks them by remote control where that is
// allowed and when the heartbeats say that something has changed.
//
// Only this package's own clock counts: what a worker says is as old as the time
// since it was heard.
package workers
