package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/retry"

	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

const (
	// concurrency bounds the patches that are under way at once.
	concurrency = 16
	// fieldManager is who the API server says has written.
	fieldManager = "celery-hpa"
)

// change is what annotations of one pod are to become, by key; nil takes one off.
type change struct {
	namespace, pod string
	uid            types.UID
	annotations    map[string]*string
}

func newChange(f fleet.Fleet, m fleet.Member) change {
	return change{namespace: f.Namespace, pod: m.Pod, uid: m.UID, annotations: map[string]*string{}}
}

func (c change) put(key, value string) { c.annotations[key] = &value }

func (c change) remove(key string) { c.annotations[key] = nil }

// applyAll makes the changes, some at once, and blocks until each was tried or ctx is
// done. The error counts those that failed and gives the first one's reason.
func applyAll(ctx context.Context, pods corev1client.PodsGetter, changes []change) error {
	var (
		running errgroup.Group
		mu      sync.Mutex
		failed  int
		first   error
	)
	running.SetLimit(concurrency)
	for _, c := range changes {
		running.Go(func() error {
			if err := c.apply(ctx, pods); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if failed++; first == nil {
					first = err
				}
			}
			return nil
		})
	}
	_ = running.Wait() // failures are counted above
	if failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d pods could not be annotated; the first: %w", failed, len(changes), first)
}

// apply makes the change if the pod is still the same one. The pod's UID in the patch
// makes the API server refuse it for a later pod of the name, as StatefulSets have.
// A pod that is gone needs no annotation.
func (c change) apply(ctx context.Context, pods corev1client.PodsGetter) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": c.uid, "annotations": c.annotations},
	})
	if err != nil {
		return fmt.Errorf("encode the annotations of pod %s/%s: %w", c.namespace, c.pod, err)
	}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error { // with whoever else writes the pod
		_, err := pods.Pods(c.namespace).Patch(ctx, c.pod, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
		return err
	})
	if err == nil || apierrors.IsNotFound(err) || isReplaced(err) {
		return nil
	}
	return fmt.Errorf("annotate pod %s/%s: %w", c.namespace, c.pod, err)
}

// isReplaced tells whether the API server refuses a patch for its UID: a patch cannot
// change that.
func isReplaced(err error) bool {
	refusal, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || refusal.ErrStatus.Details == nil {
		return false
	}
	return slices.ContainsFunc(refusal.ErrStatus.Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}
