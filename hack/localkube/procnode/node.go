package procnode

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const (
	defaultName           = "procnode"
	defaultStopGrace      = 5 * time.Second
	defaultRestartBackoff = time.Second
	retryInterval         = 200 * time.Millisecond
)

// Options of a node. Only Config must be set.
type Options struct {
	// Config reaches the API server as a user who may do everything with nodes
	// and pods.
	Config *rest.Config
	// Name of the Node, and the value for a pod's spec.nodeName; "procnode" if
	// empty.
	Name string
	// OnlyNamed leaves pods without a node alone. Otherwise the node stands for
	// the scheduler too and takes each of them, so that only one node of a
	// cluster may do so.
	OnlyNamed bool
	// LogDir is the folder, made if missing, in which each pod's output is kept
	// (see Node.PodLog). Empty discards the output.
	LogDir string
	// OnEvent is called with each event as it happens, one at a time. It must not
	// block and must not call the node.
	OnEvent func(Event)
	// Output receives a line for each thing that went wrong; nil discards them.
	Output io.Writer
	// StopGrace is what remains to the processes between SIGTERM and SIGKILL when
	// the node itself stops; 5 s if zero.
	StopGrace time.Duration
	// RestartBackoff is the pause before the second restart of a process, which
	// doubles with each further one up to 5 min; 1 s if zero, where the kubelet
	// takes 10 s. The first restart is immediate.
	RestartBackoff time.Duration
}

// Node runs pods as processes. Its methods are safe for concurrent use.
type Node struct {
	clients        kubernetes.Interface
	name           string
	onlyNamed      bool
	logDir         string
	stopGrace      time.Duration
	restartBackoff time.Duration
	journal        *journal

	outputMu sync.Mutex
	output   io.Writer

	// running waits for every goroutine of Run.
	running sync.WaitGroup
	mu      sync.Mutex
	pods    map[types.UID]*podRun
}

// New returns a node that does nothing before Run.
func New(options Options) (*Node, error) {
	clients, err := kubernetes.NewForConfig(options.Config)
	if err != nil {
		return nil, fmt.Errorf("make a client for node %s: %w", options.Name, err)
	}
	if options.LogDir != "" {
		if err := os.MkdirAll(options.LogDir, 0o755); err != nil {
			return nil, fmt.Errorf("make the folder of pod logs: %w", err)
		}
	}
	return &Node{
		clients:        clients,
		name:           orDefault(options.Name, defaultName),
		onlyNamed:      options.OnlyNamed,
		logDir:         options.LogDir,
		stopGrace:      orDefault(options.StopGrace, defaultStopGrace),
		restartBackoff: orDefault(options.RestartBackoff, defaultRestartBackoff),
		journal:        &journal{notify: options.OnEvent},
		output:         orDefault(options.Output, io.Discard),
		pods:           map[types.UID]*podRun{},
	}, nil
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// Name is the name of the Node object.
func (n *Node) Name() string { return n.name }

// Events returns what has happened to all processes so far, in order. The result
// is the caller's.
func (n *Node) Events() []Event { return n.journal.snapshot() }

// PodLog is the path of the file with a pod's output (that of its restarts
// included, and of earlier pods of the name), or os.DevNull without Options.LogDir.
func (n *Node) PodLog(namespace, pod string) string {
	if n.logDir == "" {
		return os.DevNull
	}
	return filepath.Join(n.logDir, namespace+"_"+pod+".log")
}

// Run registers the node and runs its pods until ctx ends; then it ends their
// processes (SIGTERM, Options.StopGrace, SIGKILL), leaves their pods in the API as
// they are, and returns nil when all are gone. It returns an error if the node
// cannot be registered. Call it once.
func (n *Node) Run(ctx context.Context) error {
	if err := n.register(ctx); err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopped before it began, which is no failure
		}
		return err
	}
	factory := informers.NewSharedInformerFactory(n.clients, 0)
	_, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { n.observe(ctx, object) },
		UpdateFunc: func(_, object any) { n.observe(ctx, object) },
		DeleteFunc: n.forget,
	})
	if err != nil {
		return fmt.Errorf("watch the pods of node %s: %w", n.name, err)
	}
	factory.Start(ctx.Done())
	<-ctx.Done()
	factory.Shutdown() // no event after this, so that nothing more is started
	n.running.Wait()
	return nil
}

func (n *Node) register(ctx context.Context) error {
	nodes := n.clients.CoreV1().Nodes()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: n.name, Labels: map[string]string{corev1.LabelHostname: n.name},
	}}
	if _, err := nodes.Create(ctx, node, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("register node %s: %w", n.name, err)
	}
	found, err := nodes.Get(ctx, n.name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("register node %s: %w", n.name, err)
	}
	found.Spec.Taints = nil // admission taints each new node as not ready
	if found, err = nodes.Update(ctx, found, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("register node %s: %w", n.name, err)
	}
	found.Status = readyNode()
	if _, err := nodes.UpdateStatus(ctx, found, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("call node %s ready: %w", n.name, err)
	}
	return nil
}

func quantity(text string) resource.Quantity { return resource.MustParse(text) }

// observe takes note of a pod that is new or has changed.
func (n *Node) observe(ctx context.Context, object any) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	switch {
	case pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil && !n.onlyNamed:
		n.running.Go(func() { n.bind(ctx, pod) })
	case pod.Spec.NodeName != n.name:
	case pod.DeletionTimestamp != nil:
		n.end(ctx, pod)
	default:
		n.begin(ctx, pod)
	}
}

// begin lives the pod's life, unless that is being done or over.
func (n *Node) begin(ctx context.Context, pod *corev1.Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	over := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	if over || n.pods[pod.UID] != nil {
		return
	}
	run := newPodRun(n, pod)
	n.pods[pod.UID] = run
	n.running.Go(func() {
		run.live(ctx)
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.pods, pod.UID)
	})
}

// end has a pod end that is being deleted. A pod that has no process here (any
// more) is removed at once: nobody else would.
func (n *Node) end(ctx context.Context, pod *corev1.Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if run := n.pods[pod.UID]; run != nil {
		run.endWithin(gracePeriod(pod))
		return
	}
	n.running.Go(func() { n.remove(ctx, pod) })
}

func gracePeriod(pod *corev1.Pod) time.Duration {
	seconds := pod.DeletionGracePeriodSeconds
	if seconds == nil {
		return 0
	}
	return time.Duration(*seconds) * time.Second
}

// forget ends the process of a pod that is gone from the API: it was deleted by
// force, or this node has just removed it.
func (n *Node) forget(object any) {
	if tombstone, missed := object.(cache.DeletedFinalStateUnknown); missed {
		object = tombstone.Obj
	}
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if run := n.pods[pod.UID]; run != nil {
		run.endWithin(0)
	}
}

func (n *Node) bind(ctx context.Context, pod *corev1.Pod) {
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: n.name},
	}
	n.insist(ctx, fmt.Sprintf("take pod %s/%s", pod.Namespace, pod.Name), func() error {
		return n.clients.CoreV1().Pods(pod.Namespace).Bind(ctx, binding, metav1.CreateOptions{})
	})
}

func (n *Node) patchStatus(ctx context.Context, pod *corev1.Pod, patch []byte) {
	n.insist(ctx, fmt.Sprintf("report the status of pod %s/%s", pod.Namespace, pod.Name), func() error {
		_, err := n.clients.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		return err
	})
}

func (n *Node) remove(ctx context.Context, pod *corev1.Pod) {
	now := metav1.NewDeleteOptions(0)
	now.Preconditions = metav1.NewUIDPreconditions(string(pod.UID))
	n.insist(ctx, fmt.Sprintf("remove pod %s/%s", pod.Namespace, pod.Name), func() error {
		return n.clients.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, *now)
	})
}

// insist repeats a write until it succeeds, the pod turns out to be gone or
// another's, the API server refuses it for good, or ctx ends.
func (n *Node) insist(ctx context.Context, what string, write func() error) {
	for ctx.Err() == nil {
		err := write()
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || ctx.Err() != nil {
			return
		}
		n.complain(fmt.Errorf("%s: %w", what, err))
		if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryInterval):
		}
	}
}

func (n *Node) complain(err error) {
	n.outputMu.Lock()
	defer n.outputMu.Unlock()
	fmt.Fprintf(n.output, "node %s: %v\n", n.name, err)
}
