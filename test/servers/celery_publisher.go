package servers

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/test/servers/internal/child"
)

// CeleryTask is an order to send tasks.
type CeleryTask struct {
	// N is how many are sent.
	N int
	// Queue is the queue's name; empty: Celery's default queue, "celery".
	Queue string
	// Exchange and RoutingKey are used instead of Queue.
	Exchange   string
	RoutingKey string
	// Sleep is how long each executes.
	Sleep time.Duration
	// Gate names what each waits for instead, while it executes: OpenGate.
	Gate string
	// Priority is 0 to 9 and nil for a message without one. On Redis 0 goes
	// first.
	Priority *int
	// Countdown is how long a worker holds each before it executes it.
	Countdown time.Duration
}

// publisher is one Python process that sends what it is ordered to: importing
// Celery takes longer than sending hundreds of tasks.
type publisher struct {
	mu      sync.Mutex
	orders  io.WriteCloser
	answers *bufio.Reader
}

// Publish sends tasks and returns their ids once the broker has them all.
func (c *Celery) Publish(t testing.TB, task CeleryTask) []string {
	t.Helper()
	var answer struct{ IDs []string }
	c.ask(t, task.order(), &answer)
	return answer.IDs
}

// ask lets the publisher do something and waits for its answer. The first call
// starts the publisher, which ends with the test of that call.
func (c *Celery) ask(t testing.TB, order map[string]any, answer any) {
	t.Helper()
	c.publisher.mu.Lock()
	defer c.publisher.mu.Unlock()
	if c.publisher.orders == nil {
		c.startPublisher(t)
	}
	if err := c.publisher.ask(order, answer); err != nil {
		t.Fatalf("%s: %v", order["do"], err)
	}
}

func (c *Celery) startPublisher(t testing.TB) {
	t.Helper()
	cmd := exec.Command(c.python, "-m", "celeryapp")
	cmd.Dir, cmd.Env = c.folder, c.env
	orders, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("start the Celery publisher: %v", err)
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("start the Celery publisher: %v", err)
	}
	child.Start(t, "Celery publisher", cmd)
	c.publisher.orders, c.publisher.answers = orders, bufio.NewReader(answers)
	t.Cleanup(func() { c.publisher.close() })
}

func (p *publisher) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.orders.Close()
	p.orders = nil
}

func (p *publisher) ask(order map[string]any, answer any) error {
	text, err := json.Marshal(order)
	if err != nil {
		return err
	}
	if _, err := p.orders.Write(append(text, '\n')); err != nil {
		return err
	}
	line, err := p.answers.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the publisher has ended: %w", err)
	}
	var failure struct{ Error string }
	if err := json.Unmarshal(line, &failure); err != nil {
		return fmt.Errorf("the publisher answered %q: %w", line, err)
	}
	if failure.Error != "" {
		return fmt.Errorf("publisher: %s", failure.Error)
	}
	return json.Unmarshal(line, answer)
}

// order is the task as celeryapp.py reads it.
func (task CeleryTask) order() map[string]any {
	name, args := "noop", []any{}
	switch {
	case task.Gate != "":
		name, args = "gate", []any{task.Gate}
	case task.Sleep > 0:
		name, args = "sleep", []any{task.Sleep.Seconds()}
	}
	return map[string]any{
		"do": "publish", "n": task.N, "task": name, "args": args,
		"queue": task.Queue, "exchange": task.Exchange, "routing_key": task.RoutingKey,
		"priority": task.Priority, "countdown": task.Countdown.Seconds(),
	}
}
