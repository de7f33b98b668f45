package playground

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/playground/internal/record"
)

// Batch is what a producer sends.
type Batch struct {
	Tasks int
	// Each is for how long each of them executes, Countdown how long it is held before
	// that.
	Each, Countdown time.Duration
}

// Sent is when a producer, which was connected by then, began to send the first
// message, and when the broker had the last.
type Sent = record.Sent

// Send sends tasks with a real Celery producer. It blocks until the broker has them
// all.
func (p *Playground) Send(ctx context.Context, b Batch) (Sent, error) {
	cmd := exec.CommandContext(ctx, p.layout.Python, "-m", "tasks", strconv.Itoa(b.Tasks), seconds(b.Each), seconds(b.Countdown))
	cmd.Env = append(os.Environ(), "PYTHONPATH="+p.layout.Dir, "PYTHONDONTWRITEBYTECODE=1", "PYTHONWARNINGS=ignore",
		"BROKER_URL="+p.layout.BrokerURL, "RECORD="+p.layout.Record)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return Sent{}, fmt.Errorf("send %d tasks: %w: %s", b.Tasks, err, bytes.TrimSpace(complaint.Bytes()))
	}
	return record.SentAt(string(out))
}

// Publish is Send for tasks that need not wait.
func (p *Playground) Publish(ctx context.Context, n int, each time.Duration) error {
	_, err := p.Send(ctx, Batch{Tasks: n, Each: each})
	return err
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
