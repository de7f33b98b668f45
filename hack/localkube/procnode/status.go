package procnode

import (
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/launch"
)

// statusPatch is a patch that gives the pod this status, and that the API server
// refuses if the name belongs to another pod by now.
func statusPatch(pod *corev1.Pod, status corev1.PodStatus) ([]byte, error) {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status":   status,
	})
	if err != nil {
		return nil, fmt.Errorf("encode the status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return patch, nil
}

// status is the pod's, given that of its container.
func (p *podRun) status(phase corev1.PodPhase, state corev1.ContainerState) corev1.PodStatus {
	container := p.pod.Spec.Containers[0]
	running := state.Running != nil
	return corev1.PodStatus{
		Phase:     phase,
		StartTime: &p.since,
		HostIP:    launch.Address,
		HostIPs:   []corev1.HostIP{{IP: launch.Address}},
		PodIP:     launch.Address,
		PodIPs:    []corev1.PodIP{{IP: launch.Address}},
		Conditions: []corev1.PodCondition{
			condition(corev1.PodScheduled, true, p.since),
			condition(corev1.PodInitialized, true, p.since),
			condition(corev1.ContainersReady, running, metav1.Now()),
			condition(corev1.PodReady, running, metav1.Now()),
		},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name:                 container.Name,
			Image:                container.Image,
			Ready:                running,
			Started:              &running,
			RestartCount:         p.restarts,
			State:                state,
			LastTerminationState: corev1.ContainerState{Terminated: p.lastExit},
		}},
	}
}

func condition(kind corev1.PodConditionType, holds bool, since metav1.Time) corev1.PodCondition {
	status := corev1.ConditionFalse
	if holds {
		status = corev1.ConditionTrue
	}
	return corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: since}
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// terminalPhase is the phase of a pod whose process ended for good.
func terminalPhase(exit *corev1.ContainerStateTerminated) corev1.PodPhase {
	if exit.ExitCode == 0 {
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

// terminated describes the end of a process that ran since started.
func terminated(code int, reason, message string, started time.Time) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{
		ExitCode: int32(code), Reason: reason, Message: message,
		StartedAt: metav1.NewTime(started), FinishedAt: metav1.Now(),
	}
}

// readyNode is what the node says of itself. Nobody doubts it later: the control
// plane runs no node lifecycle controller, so that no heartbeat is needed.
func readyNode() corev1.NodeStatus {
	now := metav1.Now()
	resources := corev1.ResourceList{
		corev1.ResourceCPU: quantity("64"), corev1.ResourceMemory: quantity("256Gi"), corev1.ResourcePods: quantity("1000"),
	}
	return corev1.NodeStatus{
		Capacity: resources, Allocatable: resources,
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: launch.Address}},
		Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "ProcessesCanRun",
			LastHeartbeatTime: now, LastTransitionTime: now,
		}},
	}
}
