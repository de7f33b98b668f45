package app

import (
	"errors"
	"fmt"
	"time"
)

// hearing is for how long workers are heard before a replica is ready: their heartbeats
// come every 2 s by Celery's default, and who is busy is asked then. Tasks with early
// acknowledgement that executed before it was started are in flight from then on; counts
// without them would have an HPA take busy workers away.
const hearing = 3 * time.Second

// ready returns nil once all brokers are declared, each has been read or has failed with a
// reason that can be told, and workers have been heard for a while.
func (a *App) ready() error {
	since := a.applied.Load()
	if since == nil {
		return errors.New("not all brokers are declared yet")
	}
	if err := a.store.Ready(); err != nil {
		return err
	}
	heard := time.Since(*since)
	if a.workers.cluster == nil || len(a.workers.heard.Brokers()) == 0 || heard >= hearing {
		return nil
	}
	return fmt.Errorf("workers are heard for %s, and for %s before all that they execute is known", heard.Round(time.Millisecond), hearing)
}
