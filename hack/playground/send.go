package playground

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
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
type Sent struct{ First, Last time.Time }

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
	return sentAt(string(out))
}

// Publish is Send for tasks that need not wait.
func (p *Playground) Publish(ctx context.Context, n int, each time.Duration) error {
	_, err := p.Send(ctx, Batch{Tasks: n, Each: each})
	return err
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

func sentAt(text string) (Sent, error) {
	words := strings.Fields(text)
	if len(words) != 2 {
		return Sent{}, fmt.Errorf("the producer says %q, want two times", text)
	}
	first, err := unixTime(words[0])
	last, err2 := unixTime(words[1])
	if err = errors.Join(err, err2); err != nil {
		return Sent{}, fmt.Errorf("the producer says %q: %w", text, err)
	}
	return Sent{First: first, Last: last}, nil
}
