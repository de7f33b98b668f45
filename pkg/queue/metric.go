package queue

import "slices"

// Metric is one number that a queue's depth gives, under the name that it has
// as an external metric and as a Prometheus metric.
type Metric struct {
	// Name is in lower case: client-go lower-cases the names of metrics.
	Name string
	// Help says what the number means, in one sentence.
	Help string
	// Milli tells that the number is given in thousandths of the metric's unit.
	Milli bool
	// Of takes the number from a depth.
	Of func(Depth) Count
}

// Metrics returns every metric of a queue, in a fixed order. The slice is shared: do not
// change it.
func Metrics() []Metric { return metrics }

// MetricNamed returns the metric of queues that has a name, if one has.
func MetricNamed(name string) (Metric, bool) {
	i := slices.IndexFunc(metrics, func(m Metric) bool { return m.Name == name })
	if i < 0 {
		return Metric{}, false
	}
	return metrics[i], true
}

// IsMetric reports whether a metric of that name is one of queues.
func IsMetric(name string) bool {
	_, is := MetricNamed(name)
	return is
}

var metrics = []Metric{ //nolint:gochecknoglobals // never changed; each scrape would build it anew for each queue
	{
		Name: "celery_queue_backlog",
		Help: "Messages in the queue that a worker could take now, over all priorities.",
		Of:   func(d Depth) Count { return d.Backlog },
	},
	{
		Name: "celery_queue_in_flight",
		Help: "Messages of the queue that a worker holds and has not finished: reserved, executing, or waiting for their ETA.",
		Of:   func(d Depth) Count { return d.InFlight },
	},
	{
		Name: "celery_queue_scheduled",
		Help: "Messages in flight that a worker holds for an ETA or countdown that has not come.",
		Of:   func(d Depth) Count { return d.Scheduled },
	},
	{
		Name: "celery_queue_tasks",
		Help: "The work there is now: backlog plus in flight minus scheduled.",
		Of:   Depth.Tasks,
	},
	{
		Name:  "celery_queue_oldest_task_age_seconds",
		Help:  "How long the message has waited at least that has waited longest; 0 where none waits.",
		Milli: true,
		Of:    func(d Depth) Count { return d.Oldest },
	},
	{
		Name:  "celery_queue_wait_seconds",
		Help:  "How long a task that is sent now will wait: the backlog by the rate at which the queue's workers finish tasks; 0 where none waits.",
		Milli: true,
		Of:    func(d Depth) Count { return d.Wait },
	},
	{
		Name:  "celery_queue_work_seconds",
		Help:  "The work there is now: tasks by the mean time that the queue's workers execute one.",
		Milli: true,
		Of:    func(d Depth) Count { return d.Work },
	},
}
