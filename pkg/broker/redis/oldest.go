package redis

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// largeMessage is the size, in bytes, above which a message is looked at seldom:
	// once in largePause.
	largeMessage = 64 << 10
	largePause   = 30 * time.Second
	// refusedPause is how long the messages of a queue are not asked for after the
	// server has refused.
	refusedPause = time.Minute
)

// nextReader reads which message of a queue a worker will take next, at each priority,
// and so for how long it has been waiting at least. Messages have no time of their
// own, mostly: what counts is since when a message was seen to be the next. Of a
// message nothing is kept but a hash.
type nextReader struct {
	lists []*next
	seed  maphash.Seed
	*lookRight
}

// lookRight is whether the server lets us look at messages, which all queues share.
type lookRight struct {
	denied error     // nil as long as it does
	retry  time.Time // not to be tried again before
}

// next is the next message of one list.
type next struct {
	length *goredis.IntCmd // of the list, from the same exchange
	cmd    *goredis.StringCmd
	asked  bool
	from   time.Time // not to be asked before

	hash        uint64
	since, sent time.Time // since when it is the next, zero if none; and its own time
	at          time.Time // when that was seen
}

func newNextReader(right *lookRight) *nextReader {
	return &nextReader{seed: maphash.MakeSeed(), lookRight: right}
}

// follow adds a list, of which length is the LLEN.
func (r *nextReader) follow(ctx context.Context, length *goredis.IntCmd) {
	r.lists = append(r.lists, &next{length: length, cmd: goredis.NewStringCmd(ctx, "lindex", length.Args()[1], -1)})
}

// send adds the commands of one exchange: one for each list that held something when
// it was read before.
func (r *nextReader) send(commands []goredis.Cmder, now time.Time) []goredis.Cmder {
	for _, n := range r.lists {
		n.asked = n.length.Err() == nil && n.length.Val() > 0 && !now.Before(n.from) && !now.Before(r.retry)
		if n.asked {
			commands = append(commands, n.cmd)
		}
	}
	return commands
}

// noteRefusal is called after the server refused a transaction.
func (r *nextReader) noteRefusal(now time.Time) {
	for _, n := range r.lists {
		if n.asked && server.IsRefusal(n.cmd.Err()) {
			r.denied, r.retry = n.cmd.Err(), now.Add(refusedPause)
		}
	}
}

// absorb takes in the replies of an exchange at the given time.
func (r *nextReader) absorb(at time.Time) {
	for _, n := range r.lists {
		switch message, err := n.cmd.Result(); {
		case n.length.Val() == 0 || errors.Is(err, goredis.Nil) && n.asked:
			n.since, n.at = time.Time{}, at
		case n.asked && err == nil:
			r.denied = nil
			n.see(maphash.String(r.seed, message), message, at)
		}
		n.cmd.SetVal("") // messages are credentials
	}
}

func (n *next) see(hash uint64, message string, at time.Time) {
	if n.since.IsZero() || hash != n.hash {
		n.hash, n.since, n.sent = hash, at, celery.SentAt([]byte(message))
	}
	n.at = at
	if len(message) > largeMessage {
		n.from = at.Add(largePause)
	}
}

// age is for how long the message of any priority has waited at least that has waited
// longest, given the queue's backlog.
func (r *nextReader) age(backlog queue.Count) queue.Count {
	if backlog.Err != nil || backlog.N == 0 {
		return backlog
	}
	if r.denied != nil {
		return queue.Unknown(fmt.Errorf("look at the next message: %w: this takes the right +lindex", r.denied))
	}
	oldest := queue.Known(0, backlog.At)
	for _, n := range r.lists {
		if n.since.IsZero() {
			continue
		}
		since := n.since
		if !n.sent.IsZero() && n.sent.Before(since) {
			since = n.sent
		}
		if age := n.at.Sub(since).Milliseconds(); age > oldest.N {
			oldest = queue.Known(age, n.at)
		}
	}
	return oldest
}
