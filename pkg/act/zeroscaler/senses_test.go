package zeroscaler_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// pods are those of one fleet, of which the last ones go when their workers have answered.
type pods struct {
	there []fleet.Member
	going int
}

// Fleet implements zeroscaler.Fleets.
func (p *pods) Fleet(fleet.Ref) (fleet.Fleet, error) {
	return fleet.Fleet{Members: p.there, Heard: true}, nil
}

// Selected implements zeroscaler.Fleets.
func (p *pods) Selected(string, labels.Selector) (fleet.Fleet, error) {
	return p.Fleet(fleet.Ref{})
}

// Sample implements zeroscaler.Fresh.
func (p *pods) Sample(context.Context, queue.BrokerRef) error { return nil }

// Ask implements zeroscaler.Fresh.
func (p *pods) Ask(context.Context, fleet.Fleet) error {
	p.there = p.there[:len(p.there)-p.going]
	return nil
}

// TestAPodThatIsNotSeenIsNotIdle: one that is not known yet was not asked. One that ends
// during a look may have answered that it executes a task, which nobody remembers now, and
// which may wait again in a moment.
func TestAPodThatIsNotSeenIsNotIdle(t *testing.T) {
	for _, tt := range []struct {
		rule  string
		going int
		pods  int32 // status.replicas
		want  string
	}{
		{"all stay", 0, 2, ""},
		{"one goes", 1, 2, "pod b has ended"},
		{"all go", 2, 2, "pod a has ended"},
		{"one is not known yet", 0, 3, "of its 3 pods (status.replicas) 2 are known"},
		{"one is still ending", 0, 1, ""},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			p := &pods{there: []fleet.Member{{Pod: "a", State: fleet.Idle}, {Pod: "b", State: fleet.Idle}}, going: tt.going}
			m := &zeroscaler.Memory{Fleets: p, Fresh: p, Now: time.Now}
			switch o := m.Look(t.Context(), targetOf("worker"), zeroscaler.Scale{Replicas: 2, Pods: tt.pods}); {
			case tt.want == "" && o.WorkersErr != nil:
				t.Errorf("the workers are not known: %v", o.WorkersErr)
			case tt.want != "" && (o.WorkersErr == nil || !strings.Contains(o.WorkersErr.Error(), tt.want)):
				t.Errorf("the look says %v of the workers, want an error that says %q", o.WorkersErr, tt.want)
			}
		})
	}
}
