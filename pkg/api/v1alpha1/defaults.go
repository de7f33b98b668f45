package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Defaults of Sampling.
const (
	// DefaultInterval is the time from one reading to the next.
	DefaultInterval = time.Second
	// DefaultTimeout bounds one reading.
	DefaultTimeout = 2 * time.Second
	// MaxAgeIntervals is how many intervals the last reading is served for.
	MaxAgeIntervals = 3
	// MinDefaultMaxAge is the least that MaxAge is by default, so that a short
	// interval does not turn a broker's hiccup into an error: the HPA asks every
	// 15 s only.
	MinDefaultMaxAge = 10 * time.Second
)

// Defaults of Lookout.
const (
	// DefaultLookoutInterval is the time from one reading of sleeping queues to the
	// next, where the broker does not tell of messages.
	DefaultLookoutInterval = 50 * time.Millisecond
	// DefaultReadsPerSecond bounds the queues that are read so.
	DefaultReadsPerSecond = 5000
	// DefaultSampleInterval is the time from one full reading to the next while all
	// sleep.
	DefaultSampleInterval = 5 * time.Second
)

// DefaultNamespace is the namespace of a broker in a file that names none.
const DefaultNamespace = "default"

// SetDefaults fills in what b leaves out of sampling, lookout and workers. It changes no field
// that is set, valid or not. What is empty of Redis and RabbitMQ is left to the
// drivers, which know kombu's own defaults.
func SetDefaults(b *CeleryBroker) {
	s := &b.Spec.Sampling
	setDuration(&s.Interval, DefaultInterval)
	setDuration(&s.Timeout, DefaultTimeout)
	// An interval beyond its limit is refused by Validate; bounding it here keeps
	// the product from overflowing.
	interval := min(s.Interval.Duration, maxInterval)
	setDuration(&s.MaxAge, max(MaxAgeIntervals*interval, MinDefaultMaxAge))
	l := &b.Spec.Lookout
	setBool(&l.Tracking, true)
	setDuration(&l.Interval, DefaultLookoutInterval)
	if l.ReadsPerSecond == nil {
		l.ReadsPerSecond = new(int32(DefaultReadsPerSecond))
	}
	setDuration(&l.SampleInterval, max(min(DefaultSampleInterval, s.MaxAge.Duration/2), interval))
	w := &b.Spec.Workers
	setBool(&w.Heartbeats, true)
	setBool(&w.RemoteControl, *w.Heartbeats)
}

// setBool sets *target to value where it is nil.
func setBool(target **bool, value bool) {
	if *target == nil {
		*target = &value
	}
}

// setDuration sets *target to d where it is nil.
func setDuration(target **metav1.Duration, d time.Duration) {
	if *target == nil {
		*target = &metav1.Duration{Duration: d}
	}
}
