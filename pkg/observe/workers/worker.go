package workers

import (
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// defaultFrequency is Celery's (celery/worker/heartbeat.py), for a worker that
	// does not tell its own.
	defaultFrequency = 2 * time.Second
	// missedBeats is after how many heartbeats that did not come a worker is silent.
	missedBeats = 3
	// maxSilence is the longest time that anything said is worth, however seldom a
	// worker sends its heartbeats.
	maxSilence = 30 * time.Second
)

// Worker is what is known of one worker process. Times are of our own clock: when
// something was heard.
type Worker struct {
	// Broker is where it was heard.
	Broker queue.BrokerRef
	// Node is its name, Host the part of it that is the pod's.
	Node, Host string
	// PID tells apart workers of one name.
	PID celery.Number
	// HeardAt is when anything was heard of it last.
	HeardAt time.Time
	// Frequency is the time from one heartbeat to the next.
	Frequency time.Duration
	// OfflineAt is when it has said that it shuts down, with tasks that may still
	// execute; zero if it has not. Some pools send heartbeats until the end (gevent),
	// others nothing more.
	OfflineAt time.Time
	// Active is how many tasks executed at HeardAt, unknown if it did not say.
	Active celery.Number
	// Moved tells whether it has taken tasks since the heartbeat before. A worker
	// whose tasks are short, or of the solo pool, may look idle at each heartbeat.
	Moved bool
	// Since is since when, as far as was heard, it has executed something without a
	// pause, or nothing at all.
	Since time.Time
	// Slots is how many tasks it can execute at once, unknown until remote control
	// has told.
	Slots celery.Number
	// Queues are those that it serves, nil until remote control has told.
	Queues []monitor.ServedQueue
	// Tasks are those that it executes, as remote control has told last. They may
	// be fewer than Active for as long as it takes to ask.
	Tasks []monitor.ExecutingTask
	// Told is how many tasks it has told by remote control that it executes, at ToldAt,
	// those included of queues that could not be told. It is 0 from the next heartbeat on
	// that was sent later: that one knows better.
	Told   int
	ToldAt time.Time
	// Begun is how many tasks have left the broker since it told last what it executes,
	// and may have begun: as far as nobody has told of them, it may execute them, or
	// another that serves their queues. See Store.AddBegun.
	Begun int64
}

// Offline reports whether it shuts down.
func (w Worker) Offline() bool { return !w.OfflineAt.IsZero() }

// Silent reports whether a worker has been silent for so long that what it said
// last says nothing of the present.
func (w Worker) Silent(now time.Time) bool { return now.Sub(w.HeardAt) > w.patience() }

// patience is how long a worker may be silent.
func (w Worker) patience() time.Duration {
	return min(missedBeats*w.Frequency, maxSilence)
}

// Declaration is what the configuration says of workers. The zero value says nothing.
type Declaration struct {
	// Queues are those that they serve.
	Queues []string
	// AcksLate is Celery's task_acks_late.
	AcksLate bool
}
