package beats

import (
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// maxRecent bounds the heartbeats that are remembered of one worker.
const maxRecent = 64

// Beat is what one heartbeat said.
type Beat struct {
	At     time.Time
	Active celery.Number
}

// Recent are the heartbeats of the latest time. The zero value has none.
type Recent []Beat

// Add takes in the latest heartbeat and returns how many tasks execute by it, or the
// most by any that came closer to it than one worker of that frequency sends them: those
// are of several workers of one name. Unknown is more than any number.
func (r *Recent) Add(latest Beat, frequency time.Duration) celery.Number {
	alone := latest.At.Add(-frequency * 9 / 10)
	*r = slices.DeleteFunc(*r, func(b Beat) bool { return b.At.Before(alone) })
	if len(*r) < maxRecent {
		*r = append(*r, latest)
	}
	most := latest.Active
	for _, b := range *r {
		if !b.Active.Known || !most.Known {
			return celery.Number{}
		}
		most.N = max(most.N, b.Active.N)
	}
	return most
}
