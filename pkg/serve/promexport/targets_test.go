package promexport_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/serve/promexport"
)

// sizes are targets, of which the scale of one is known.
type sizes struct{}

func (sizes) All() []target.Target {
	of := func(hpa, version, kind string) target.Target {
		return target.Target{Namespace: "airflow", HPA: hpa, APIVersion: version, Kind: kind, Name: hpa, MinReplicas: 1, MaxReplicas: 20}
	}
	return []target.Target{of("known", "apps/v1", "StatefulSet"), of("lost", "apps/v1", "Deployment"), of("other", "argoproj.io/v1alpha1", "Rollout")}
}

func (sizes) Scale(ref fleet.Ref) (fleet.Scale, error) {
	if (ref != fleet.Ref{Namespace: "airflow", Kind: fleet.StatefulSet, Name: "known"}) {
		return fleet.Scale{}, fleet.ErrNoFleet
	}
	return fleet.Scale{Replicas: 0, Pods: 2}, nil
}

func TestASizeThatIsNotKnownHasNoSeries(t *testing.T) {
	const want = `
# HELP celery_hpa_target_max_replicas The HPA's maxReplicas.
# TYPE celery_hpa_target_max_replicas gauge
celery_hpa_target_max_replicas{hpa="known",namespace="airflow"} 20
celery_hpa_target_max_replicas{hpa="lost",namespace="airflow"} 20
celery_hpa_target_max_replicas{hpa="other",namespace="airflow"} 20
# HELP celery_hpa_target_min_replicas The HPA's minReplicas.
# TYPE celery_hpa_target_min_replicas gauge
celery_hpa_target_min_replicas{hpa="known",namespace="airflow"} 1
celery_hpa_target_min_replicas{hpa="lost",namespace="airflow"} 1
celery_hpa_target_min_replicas{hpa="other",namespace="airflow"} 1
# HELP celery_hpa_target_replicas Replicas that the target of the HPA is to have now (spec.replicas); absent while that is not known, and for kinds other than Deployment and StatefulSet.
# TYPE celery_hpa_target_replicas gauge
celery_hpa_target_replicas{hpa="known",namespace="airflow"} 0
`
	exporter := promexport.NewTargets(sizes{}, sizes{})
	if err := testutil.CollectAndCompare(exporter, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(exporter); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}
