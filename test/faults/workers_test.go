package faults_test

import (
	"syscall"
	"testing"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// A worker that is lost while it executes a task is busy, and then unknown: it is
// idle at no time.
func TestWorkersThatAreLost(t *testing.T) {
	onBoth(t, func(t *testing.T, s *site) {
		t.Run("killed", s.killed)
		t.Run("frozen", s.frozen)
		t.Run("cut off", s.cutOff)
		t.Run("shutting down", s.shuttingDown)
	})
}

// Nobody is heard then, and everybody afterwards, those that have executed a task all
// the while as busy.
func TestBrokerThatIsGoneMakesWorkersUnknown(t *testing.T) {
	onBoth(t, func(t *testing.T, s *site) {
		t.Run("paused", func(t *testing.T) { s.outage(t, s.pause, s.resume) })
		t.Run("stopped", func(t *testing.T) { s.outage(t, s.stop, s.start) })
	})
}

// occupied starts a worker that executes a task of its own queue until the gate of
// that name is opened, and a program that knows it.
func (s *site) occupied(t *testing.T, name string, env ...string) (*servers.Worker, *program) {
	t.Helper()
	p := s.run(t, "")
	s.Publish(t, servers.CeleryTask{N: 1, Queue: name, Gate: name})
	w := s.StartWorker(t, servers.WorkerOptions{Name: name, Queues: []string{name}, Concurrency: 1, Env: env})
	p.awaitStates(t, states{"idle": 1, "busy": 1})
	return w, p
}

func (s *site) killed(t *testing.T) {
	w, p := s.occupied(t, "killed")
	w.Kill()
	p.awaitChange(t, states{"idle": 1, "unknown": 1})
}

// The process that executes the task goes on, and ends it.
func (s *site) frozen(t *testing.T) {
	w, p := s.occupied(t, "frozen")
	w.Signal(t, syscall.SIGSTOP)
	p.awaitChange(t, states{"idle": 1, "unknown": 1})
	s.OpenGate(t, "frozen")
	w.Signal(t, syscall.SIGCONT)
	p.awaitChange(t, states{"idle": 2})
}

func (s *site) cutOff(t *testing.T) {
	network := startProxy(t, s.address)
	_, p := s.occupied(t, "cut", "CELERY_BROKER_URL="+network.through(s.url))
	network.setCut(true)
	p.awaitChange(t, states{"idle": 1, "unknown": 1})
	network.setCut(false)
	p.awaitChange(t, states{"idle": 1, "busy": 1})
	s.OpenGate(t, "cut")
	p.awaitChange(t, states{"idle": 2})
}

// The broker has forgotten the task, and the worker says nothing any more: its task
// counts all the same. Another worker that is frozen later goes silent; by then this
// one has been silent for longer.
func (s *site) shuttingDown(t *testing.T) {
	w, p := s.occupied(t, "draining")
	later := s.StartWorker(t, servers.WorkerOptions{Name: "later", Queues: []string{"later"}, Concurrency: 1})
	p.awaitStates(t, states{"idle": 2, "busy": 1})
	p.awaitTasks(t, "draining", "1")
	watched := p.watchTasks(t, "draining")
	w.Signal(t, syscall.SIGTERM)
	p.awaitChange(t, states{"idle": 2, "draining": 1})
	later.Signal(t, syscall.SIGSTOP)
	p.awaitChange(t, states{"idle": 1, "unknown": 1, "draining": 1})
	if a := p.of("celery_queue_in_flight", "draining")(); !a.is("prod/draining", "1") {
		t.Errorf("in flight is %s, want 1", a)
	}
	checkOnly(t, watched.end(), "prod/draining", "1")
	s.OpenGate(t, "draining")
	<-w.Done()
	p.awaitChange(t, states{"idle": 1, "unknown": 1, "draining": 1})
}

func (s *site) outage(t *testing.T, begin, end func(testing.TB)) {
	name := t.Name()[len(t.Name())-6:]
	_, p := s.occupied(t, name)
	begin(t)
	p.awaitChange(t, states{"unknown": 2})
	p.awaitMetric(t, deaf)
	end(t)
	p.awaitMetric(t, hearing)
	p.awaitChange(t, states{"idle": 1, "busy": 1})
	s.OpenGate(t, name)
	p.awaitChange(t, states{"idle": 2})
}
