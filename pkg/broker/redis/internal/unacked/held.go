package unacked

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

const (
	// rangeSize is how many tags one ZRANGE lists: 0.1 ms of an idle server, 0.5 ms
	// of a busy one.
	rangeSize = 2_000
	// fetchCount and fetchBytes bound one HMGET: the time of the server and the
	// memory on our side.
	fetchCount = 128
	fetchBytes = 4 << 20
	// maxEntry bounds what is fetched at all, in bytes. Larger entries are not
	// attributed.
	maxEntry = 16 << 20
	// estimateSize is how many entries an estimate looks at: a share of one
	// half is then right within three percent in two of three samples.
	estimateSize = 1000
)

// uuidKey is a delivery tag or a task's id in 16 bytes: the UUID that kombu and
// Celery write, or a hash of anything else.
type uuidKey [16]byte

// keyOf keeps texts apart that differ, but for collisions of SHA-256.
func keyOf(text string) uuidKey {
	var key uuidKey
	if len(text) == 36 && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-' {
		var digits [32]byte
		copy(digits[:], text[:8])
		copy(digits[8:], text[9:13])
		copy(digits[12:], text[14:18])
		copy(digits[16:], text[19:23])
		copy(digits[20:], text[24:])
		if _, err := hex.Decode(key[:], digits[:]); err == nil && !hasUpper(digits[:]) {
			return key
		}
	}
	sum := sha256.Sum256([]byte(text))
	copy(key[:], sum[:])
	return key
}

func hasUpper(digits []byte) bool {
	return slices.ContainsFunc(digits, func(c byte) bool { return 'A' <= c && c <= 'F' })
}

// message is what is remembered of a message in flight.
type message struct {
	// eta is in nanoseconds of Unix time; 0 means none.
	eta   int64
	route routeID
	// seen is the listing that had it last.
	seen uint32
	// task is the task's id; zero if the message does not tell.
	task uuidKey
}

// Limits bound what is remembered and fetched.
type Limits struct {
	// Tags is how many messages are remembered one by one; with more, counts
	// are estimated.
	Tags int
	// Fetch is how many unseen messages one sample fetches.
	Fetch int
}

// Holder follows the unacked hash. For each sample, call Begin and Measure, then
// for each exchange Send, Absorb and Attribute. It is not safe for concurrent
// use.
type Holder struct {
	keys              celery.Keys
	maxTags, maxFetch int

	messages map[uuidKey]message
	routes   routeTable
	listing  uint32
	// size is the length of the index when it was last listed; -1 means that
	// nobody knows.
	size int64

	length, indexLength *goredis.IntCmd
	ranges              []*goredis.StringSliceCmd

	round
}

// round is the state of one sample.
type round struct {
	// deadline is when fetching stops, to leave time for the rest.
	deadline time.Time
	// refused is why the server does not let us read the keys.
	refused error
	// gone holds the tags that were listed but had no entry when fetched.
	gone map[uuidKey]bool
	// vanished and pending count the entries of the last listing that are not
	// known: gone when fetched, or not fetched yet.
	vanished, pending int
	// lookedAgain is true once the exchange was repeated for vanished messages.
	lookedAgain bool
	// rechecked is true once the memory was cleared because it did not add up.
	rechecked bool
	// estimating is true if the listing is a random choice.
	estimating bool
	counts     []tally // by routeID
	// executing are tasks that workers execute, beside those that were found in
	// the last listing.
	executing executing
	err       error // why nothing is known of what is in flight
}

// NewHolder makes a holder that knows nothing yet.
func NewHolder(limits Limits, keys celery.Keys) *Holder {
	return &Holder{
		keys: keys, maxTags: limits.Tags, maxFetch: limits.Fetch,
		messages: map[uuidKey]message{}, routes: newRouteTable(), size: -1,
	}
}

// Begin starts a sample, which stops fetching at the deadline.
func (h *Holder) Begin(deadline time.Time) {
	h.round = round{deadline: deadline, gone: map[uuidKey]bool{}}
}

// Reset is called when another server is read: it may hold more or less.
func (h *Holder) Reset() { h.size = -1 }

// forget makes the next listing fetch everything anew.
func (h *Holder) forget() {
	clear(h.messages)
}

// Measure reads how much there is to list, where nobody knows.
func (h *Holder) Measure(ctx context.Context, e server.Endpoint) error {
	if h.size >= 0 {
		return nil
	}
	c := goredis.NewIntCmd(ctx, "zcard", h.keys.UnackedIndex)
	if err := e.Exec(ctx, false, []goredis.Cmder{c}); err != nil {
		return err
	}
	h.size = c.Val() // 0 if refused or of the wrong type, which the listing tells
	return nil
}

// Send adds the commands that list what is in flight.
func (h *Holder) Send(ctx context.Context, commands []goredis.Cmder) []goredis.Cmder {
	h.ranges = nil
	if h.refused != nil {
		return commands
	}
	h.length = goredis.NewIntCmd(ctx, "hlen", h.keys.Unacked)
	h.indexLength = goredis.NewIntCmd(ctx, "zcard", h.keys.UnackedIndex)
	h.estimating = h.size > int64(h.maxTags)
	if h.estimating {
		h.chooseRanges(ctx)
	} else {
		h.allRanges(ctx)
	}
	commands = append(commands, h.length, h.indexLength)
	for _, r := range h.ranges {
		commands = append(commands, r)
	}
	return commands
}

// allRanges lists every tag; the last range is open, since there may be more
// than when the size was read.
func (h *Holder) allRanges(ctx context.Context) {
	var start int64
	for ; start+rangeSize < h.size; start += rangeSize {
		h.addRange(ctx, start, start+rangeSize-1)
	}
	h.addRange(ctx, start, -1)
}

// chooseRanges lists tags at random places. Each is a command of its own:
// neighbours were picked up together and would be alike.
func (h *Holder) chooseRanges(ctx context.Context) {
	places := map[int64]bool{}
	for range min(estimateSize, h.maxTags) {
		places[rand.Int64N(h.size)] = true
	}
	for place := range places {
		h.addRange(ctx, place, place)
	}
}

func (h *Holder) addRange(ctx context.Context, start, stop int64) {
	h.ranges = append(h.ranges, goredis.NewStringSliceCmd(ctx, "zrange", h.keys.UnackedIndex, start, stop))
}

// commandError is the first error of the commands that list.
func (h *Holder) commandError() error {
	if h.refused != nil {
		return h.refused
	}
	if err := h.length.Err(); err != nil {
		return err
	}
	if err := h.indexLength.Err(); err != nil {
		return err
	}
	for _, r := range h.ranges {
		if r.Err() != nil {
			return r.Err()
		}
	}
	return nil
}

// NoteRefusal is called after the server refused a transaction.
func (h *Holder) NoteRefusal() {
	if h.refused != nil {
		return
	}
	if err := h.length.Err(); server.IsRefusal(err) {
		h.refused = err
	}
	if err := h.indexLength.Err(); server.IsRefusal(err) {
		h.refused = err
	}
	for _, r := range h.ranges {
		if server.IsRefusal(r.Err()) {
			h.refused = r.Err()
		}
	}
}

// Absorb takes in a listing and fetches what it has not seen. It reports
// whether the exchange should be repeated because the numbers do not add up to
// one moment. An error is one of the connection.
func (h *Holder) Absorb(ctx context.Context, e server.Endpoint, now time.Time) (again bool, err error) {
	if err := h.commandError(); err != nil {
		h.err, h.size = fmt.Errorf("in flight of every queue: read keys %q and %q: %w", h.keys.Unacked, h.keys.UnackedIndex, err), -1
		return false, nil
	}
	h.err, h.size = nil, h.indexLength.Val()
	unseen := h.mark()
	if h.length.Val() == 0 {
		unseen = nil // what the index still lists has no messages
		h.forget()
	}
	if err := h.fetchUnseen(ctx, e, unseen); err != nil {
		return false, err
	}
	h.count(now)
	return h.lookAgain() || h.recheck(), nil
}

// lookAgain is true once in a sample, if messages were gone when they were to be
// fetched: one that was put back is then found in its list. Those that are gone
// the second time were taken after the first, a few milliseconds ago, and are
// taken for finished, like those that are on their way from a list to the hash.
// On a broker where thousands of short tasks finish in a second some are always
// gone, however often one looks.
func (h *Holder) lookAgain() bool {
	if h.vanished == 0 || h.lookedAgain {
		return false
	}
	h.lookedAgain = true
	return true
}

// mark notes which messages were listed and returns the tags never seen.
func (h *Holder) mark() []string {
	h.listing++
	var unseen []string
	for _, r := range h.ranges {
		for _, tag := range r.Val() {
			key := keyOf(tag)
			m, ok := h.messages[key]
			if !ok {
				unseen = append(unseen, tag)
				continue
			}
			m.seen = h.listing
			h.messages[key] = m
		}
	}
	return unseen
}

// fetchUnseen fetches as many as one sample may, and some in any case, so that
// it comes to an end.
func (h *Holder) fetchUnseen(ctx context.Context, e server.Endpoint, unseen []string) error {
	h.vanished, h.pending = 0, 0
	for done := 0; done < len(unseen); {
		if done >= h.maxFetch || (done > 0 && time.Now().After(h.deadline)) {
			h.pending = len(unseen) - done
			return nil
		}
		chunk := unseen[done:min(done+fetchCount, len(unseen), h.maxFetch)]
		if err := h.fetch(ctx, e, chunk); err != nil {
			return err
		}
		done += len(chunk)
	}
	return nil
}

// fetch asks for the sizes first, so that no reply takes more memory than
// intended.
func (h *Holder) fetch(ctx context.Context, e server.Endpoint, tags []string) error {
	sizes := make([]goredis.Cmder, len(tags))
	for i, tag := range tags {
		sizes[i] = goredis.NewIntCmd(ctx, "hstrlen", h.keys.Unacked, tag)
	}
	if err := e.Exec(ctx, false, sizes); err != nil {
		return err
	}
	var batch []string
	var total int64
	for i, tag := range tags {
		size := sizes[i].(*goredis.IntCmd)
		if err := size.Err(); err != nil {
			return fmt.Errorf("size of an entry of %q: %w", h.keys.Unacked, err)
		}
		if size.Val() > maxEntry {
			h.remember(tag, celery.Unacked{}, celery.ErrUnackedShape)
			continue
		}
		if total += size.Val(); total > fetchBytes && len(batch) > 0 {
			if err := h.fetchBatch(ctx, e, batch); err != nil {
				return err
			}
			batch, total = nil, size.Val()
		}
		batch = append(batch, tag)
	}
	return h.fetchBatch(ctx, e, batch)
}

// fetchBatch fetches, decodes and drops the messages.
func (h *Holder) fetchBatch(ctx context.Context, e server.Endpoint, tags []string) error {
	if len(tags) == 0 {
		return nil
	}
	args := make([]any, 0, 2+len(tags))
	args = append(args, "hmget", h.keys.Unacked)
	for _, tag := range tags {
		args = append(args, tag)
	}
	c := goredis.NewSliceCmd(ctx, args...)
	if err := e.Exec(ctx, false, []goredis.Cmder{c}); err != nil {
		return err
	}
	if c.Err() != nil {
		return fmt.Errorf("fetch entries of %q: %w", h.keys.Unacked, c.Err())
	}
	for i, value := range c.Val() {
		text, ok := value.(string)
		if !ok {
			h.noteGone(tags[i])
			continue
		}
		u, err := celery.DecodeUnacked([]byte(text))
		h.remember(tags[i], u, err)
	}
	return nil
}

// noteGone handles a tag without an entry. kombu adds and removes both at once,
// so one that is listed again after it had no entry is a leftover in the index,
// and no message.
func (h *Holder) noteGone(tag string) {
	key := keyOf(tag)
	if h.gone[key] {
		h.messages[key] = message{route: noMessage, seen: h.listing}
		return
	}
	h.gone[key] = true
	h.vanished++
}

// remember keeps the route and the ETA of a message.
func (h *Holder) remember(tag string, u celery.Unacked, err error) {
	m := message{route: noRoute, seen: h.listing}
	if err == nil {
		m.route = h.routes.id(route{u.Exchange, u.RoutingKey})
	}
	if !u.ETA.IsZero() {
		m.eta = u.ETA.UnixNano()
	}
	if u.ID != "" {
		m.task = keyOf(u.ID)
	}
	h.messages[keyOf(tag)] = m
}

// count counts the messages of the last listing by route, and forgets the
// others.
func (h *Holder) count(now time.Time) {
	h.counts = make([]tally, len(h.routes.list))
	h.executing.begin()
	nanos := now.UnixNano()
	for key, m := range h.messages {
		if m.seen != h.listing {
			delete(h.messages, key)
			continue
		}
		c := &h.counts[m.route]
		c.held++
		if m.eta > nanos {
			c.scheduled++
		}
		h.executing.note(m.task)
	}
	h.routes.release(h.counts)
}

// known is how many entries of the hash were counted.
func (h *Holder) known() int64 {
	var n int64
	for id, c := range h.counts {
		if routeID(id) != noMessage { //nolint:gosec // few
			n += c.held
		}
	}
	return n
}

// recheck clears what may be wrong if hash and memory differ in number, once in
// a sample: entries deleted by other hands, or leftovers that became messages.
func (h *Holder) recheck() bool {
	if h.rechecked || h.estimating || h.pending > 0 {
		return false
	}
	known, length := h.known()+int64(h.vanished), h.length.Val()
	if known == length || (known < length && h.counts[noMessage].held == 0) {
		return false
	}
	h.rechecked = true
	clear(h.gone)
	h.forget()
	return true
}
