package fleet

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
)

// hostOf is the name under which a pod's worker is heard: the pod's, where its host
// name was not set to another.
func hostOf(p *corev1.Pod) string {
	host := p.Name
	switch {
	case p.Spec.HostNetwork:
		host = p.Spec.NodeName
	case p.Spec.Hostname != "":
		host = p.Spec.Hostname
	}
	return monitor.HostName(host)
}

// ownerOf names the fleet of a pod, if it has one. The Deployment of a ReplicaSet is
// told by the label that the Deployment controller puts on each: a ReplicaSet's name
// is the Deployment's, a dash, and the label's value
// (k8s.io/kubernetes/pkg/controller/deployment/sync.go, getNewReplicaSet).
func ownerOf(p *corev1.Pod) (Ref, bool) {
	owner := metav1.GetControllerOfNoCopy(p)
	if owner == nil || !strings.HasPrefix(owner.APIVersion, appsv1.GroupName+"/") {
		return Ref{}, false
	}
	switch owner.Kind {
	case string(StatefulSet):
		return Ref{p.Namespace, StatefulSet, owner.Name}, true
	case "ReplicaSet":
		hash := p.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
		name, found := strings.CutSuffix(owner.Name, "-"+hash)
		return Ref{p.Namespace, Deployment, name}, found && hash != "" && name != ""
	}
	return Ref{}, false
}

// ordinalOf is a pod's number in a StatefulSet whose first one is start, -1 if its
// name does not tell.
func ordinalOf(pod, set string, start int) int {
	number, found := strings.CutPrefix(pod, set+"-")
	n, err := strconv.Atoi(number)
	if !found || err != nil || n < start {
		return -1
	}
	return n - start
}

func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// hasEnded reports whether nothing of a pod runs any more.
func hasEnded(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// restartsOf is how often the pod's containers were started again, all together.
func restartsOf(p *corev1.Pod) int32 {
	var n int32
	for _, c := range p.Status.ContainerStatuses {
		n += c.RestartCount
	}
	return n
}

// ago is a length of time for people.
func ago(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprint(d.Round(time.Millisecond))
	}
	return fmt.Sprint(d.Round(100 * time.Millisecond))
}
