// Package drain says which workers go first, to those who take pods away: to the
// ReplicaSet controller when a Deployment is scaled down (Costs, Marker), and to node
// autoscalers at any time (Protector). It speaks through annotations of pods.
//
// The ReplicaSet controller sorts the pods of one ReplicaSet, to remove the first
// ones (k8s.io/kubernetes, pkg/controller/controller_utils.go,
// ActivePodsWithRanks.Less, v1.37): pods without a node come before those with one,
// pending ones before running ones, pods that are not ready before those that are,
// and only then lower costs before higher ones. So a busy pod that is not ready goes
// before an idle one that is, whatever their costs: a readiness probe of a worker
// must not fail because the worker is busy. Costs that do not parse, and missing
// ones, count as 0. During a rollout each ReplicaSet sorts its own pods alone.
//
// A StatefulSet sorts by ordinal and nothing else: costs mean nothing to it.
package drain
