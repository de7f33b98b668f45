package celerybroker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// elsewhere is a namespace without a broker, with an HPA on a metric of ours and one on
// somebody else's.
const elsewhere = `
apiVersion: v1
kind: Namespace
metadata: {name: elsewhere}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker, namespace: elsewhere}
spec:
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec: {containers: [{name: worker, image: none}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: ours, namespace: elsewhere}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: worker}
  maxReplicas: 2
  metrics:
  - type: External
    external: {metric: {name: celery_queue_tasks, selector: {matchLabels: {queue: celery}}}, target: {type: AverageValue, averageValue: "1"}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: other, namespace: elsewhere}
spec:
  selector: {matchLabels: {app: other}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: worker, image: none}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: theirs, namespace: elsewhere}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: other}
  maxReplicas: 2
  metrics:
  - type: External
    external: {metric: {name: lag}, target: {type: AverageValue, averageValue: "1"}}
`

// testUnserved has an HPA ask in a namespace without a broker. It is told why it gets
// nothing, once, whichever process of celery-hpa it asks.
func (c *cluster) testUnserved(t *testing.T) {
	c.apply(t, elsewhere)
	for _, process := range []string{"first", "second"} {
		t.Run(process, func(t *testing.T) {
			p := c.run(t, "")
			eventually.Succeeds(t, patience, "the HPA is seen", func() error {
				if !strings.Contains(p.log.String(), "An HPA scales on metrics of a namespace that no broker serves") {
					return fmt.Errorf("it has seen no HPA without a broker")
				}
				return nil
			})
			eventually.Succeeds(t, patience, "there is an event", func() error {
				if events := c.eventsElsewhere(t); len(events) == 0 {
					return fmt.Errorf("there is no event")
				}
				return nil
			})
		})
	}
	const want = "ours Warning There is no value of celery_queue_tasks: no CeleryBroker serves namespace elsewhere. " +
		"Make one there, or move the HPA and what it scales to the namespace of the broker's"
	if events := c.eventsElsewhere(t); !slices.Equal(events, []string{want}) {
		t.Errorf("the events are %q, want %q", events, want)
	}
}

// eventsElsewhere are the events of that namespace that are ours: of what, type and message.
func (c *cluster) eventsElsewhere(t *testing.T) []string {
	t.Helper()
	out := c.kubectl(t, "-n", "elsewhere", "get", "events", "--field-selector=reason=NoBroker",
		"-o", `jsonpath={range .items[*]}{.involvedObject.name} {.type} {.message}{"\n"}{end}`)
	return slices.DeleteFunc(strings.Split(out, "\n"), func(s string) bool { return s == "" })
}
