package rabbitmq_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// TestLookout runs on one server, each test in a virtual host of its own, with a user
// that may do nothing in it.
func TestLookout(t *testing.T) {
	server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{QuorumTick: tick})
	for name, test := range map[string]func(t *testing.T, b *celeryBroker){
		"what waits is read of every type of queue":             everyType,
		"the broker tells of nothing":                           tellsNothing,
		"a queue that is not there is unknown until it is":      appears,
		"a queue that is deleted and made again":                madeAgain,
		"a queue of which nothing is known harms no other":      harmsNoOther,
		"a thousand queues of which every other is missing":     halfMissing,
		"all of many missing queues have their turn":            haveTheirTurn,
		"a queue that does not answer harms no other":           silentQueue,
		"no right is needed but access to the virtual host":     noRight,
		"reading makes nothing on the broker":                   lookoutMakesNothing,
		"there is one connection, with a name":                  lookoutConnection,
		"few channels are taken":                                fewChannels,
		"a broker out of memory is read, and one that is short": lookoutOutOfMemory,
		"a connection that is closed by force":                  closedByForce,
		"a virtual host that is deleted":                        deletedVhost,
		"a server that is started again":                        lookoutRestarted,
		"a silent server":                                       lookoutSilent,
		"a second server that answers where the first is not":   lookoutFailover,
		"a server that lets nobody in":                          lookoutRefused,
		"queues that are watched no more are forgotten":         forgotten,
	} {
		t.Run(name, func(t *testing.T) {
			b := startCelery(t, server, nil)
			b.cfg.Timeout = patience
			test(t, b)
		})
	}
}

// lookout is one for the drivers' user.
func (b *celeryBroker) lookout(t testing.TB) *rabbitmq.Lookout {
	t.Helper()
	cfg := b.cfg
	cfg.URL = b.UserURL(driverUser, brokertest.Secret, b.vhost)
	return newLookout(t, cfg)
}

func newLookout(t testing.TB, cfg rabbitmq.Config) *rabbitmq.Lookout {
	t.Helper()
	l, err := rabbitmq.NewLookout(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// openLine opens a line, which is closed when the test ends.
func openLine(t testing.TB, l *rabbitmq.Lookout) *rabbitmq.LookoutLine {
	t.Helper()
	line, err := l.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = line.Close() })
	return line
}

// unknown stands for a count that is.
const unknown = -1

// read reads queues, and fails the test if that fails.
func read(t testing.TB, line *rabbitmq.LookoutLine, queues ...string) []int64 {
	t.Helper()
	counts, err := line.Read(t.Context(), queues)
	if err != nil {
		t.Fatal(err)
	}
	numbers := make([]int64, len(counts))
	for i, c := range counts {
		numbers[i] = c.N
		if c.Err != nil {
			numbers[i] = unknown
			brokertest.CheckText(t, c.Err, fmt.Sprintf("queue %q", queues[i]))
		}
	}
	return numbers
}

// reads fails the test unless the queues are read so at once.
func reads(t testing.TB, line *rabbitmq.LookoutLine, queues []string, want ...int64) {
	t.Helper()
	if diff := cmp.Diff(want, read(t, line, queues...)); diff != "" {
		t.Errorf("%v are read otherwise (-want +got):\n%s", queues, diff)
	}
}

// becomes waits until a queue is read so.
func becomes(t testing.TB, line *rabbitmq.LookoutLine, name string, want int64) {
	t.Helper()
	eventually.Holds(t, patience, fmt.Sprintf("%d in %s", want, name), func() bool { return read(t, line, name)[0] == want })
}

func everyType(t *testing.T, b *celeryBroker) {
	line := openLine(t, b.lookout(t))
	var names []string
	for kind, arguments := range map[string]amqp.Table{
		"classic": nil, "priority": {"x-max-priority": 10, "x-queue-mode": "lazy"}, "quorum": {"x-queue-type": "quorum"},
	} {
		b.arguments = arguments
		names = append(names, kind)
		b.Declare(t, kind)
		becomes(t, line, kind, 0)
		b.Publish(t, kind, brokertest.Message{}, brokertest.Message{Priority: 9}, brokertest.Message{Priority: 3})
		becomes(t, line, kind, 3)
		b.Take(t, kind, 1)
		becomes(t, line, kind, 2)
		b.Purge(t, kind)
		becomes(t, line, kind, 0)
		b.Publish(t, kind, brokertest.Message{})
		becomes(t, line, kind, 1)
	}
	reads(t, line, names, 1, 1, 1)
}

func tellsNothing(t *testing.T, b *celeryBroker) {
	line := openLine(t, b.lookout(t))
	if line.Tells() || line.Reason() == nil {
		t.Errorf("the line tells (%t): %v", line.Tells(), line.Reason())
	}
	names, err := line.Told(t.Context())
	if names != nil {
		t.Errorf("the line has told of %v", names)
	}
	brokertest.CheckText(t, err, line.Reason().Error())
}

func appears(t *testing.T, b *celeryBroker) {
	b.Publish(t, "celery", make([]brokertest.Message, 2)...)
	line := openLine(t, b.lookout(t))
	counts, err := line.Read(t.Context(), []string{"later", "celery"})
	if err != nil || counts[1].Err != nil || counts[1].N != 2 {
		t.Fatalf("celery is %+v (%v), want 2", counts, err)
	}
	brokertest.CheckText(t, counts[0].Err, `queue "later"`, "has no such queue")
	b.Publish(t, "later", brokertest.Message{})
	eventually.Holds(t, patience, "the queue to be seen", func() bool {
		numbers := read(t, line, "later", "celery")
		if numbers[1] != 2 {
			t.Fatalf("celery has %d, want 2", numbers[1])
		}
		return numbers[0] == 1
	})
	b.Publish(t, "later", brokertest.Message{})
	reads(t, line, []string{"later"}, 2)
}

func madeAgain(t *testing.T, b *celeryBroker) {
	for _, name := range []string{"a", "b", "c"} {
		b.Publish(t, name, brokertest.Message{})
	}
	line := openLine(t, b.lookout(t))
	reads(t, line, []string{"a", "b", "c"}, 1, 1, 1)
	b.Delete(t, "b")
	reads(t, line, []string{"a", "b", "c"}, 1, unknown, 1)
	b.Publish(t, "b", make([]brokertest.Message, 2)...)
	becomes(t, line, "b", 2)
	reads(t, line, []string{"a", "b", "c"}, 1, 2, 1)
}

// Names that cannot be, a queue that belongs to somebody else's connection, and one
// that is not there.
func harmsNoOther(t *testing.T, b *celeryBroker) {
	b.Publish(t, "good", brokertest.Message{})
	b.Publish(t, "日本語 %2F", brokertest.Message{})
	longest := strings.Repeat("l", 255)
	b.Publish(t, longest, brokertest.Message{})
	_, err := b.worker.QueueDeclare("exclusive", false, true, true, false, nil)
	check(t, err)
	line := openLine(t, b.lookout(t))
	queues := []string{"good", "", "exclusive", "日本語 %2F", "missing", longest, longest + "l", "good"}
	for range 3 {
		reads(t, line, queues, 1, unknown, unknown, 1, unknown, 1, unknown, 1)
	}
	counts, err := line.Read(t.Context(), queues)
	if err != nil {
		t.Fatal(err)
	}
	for i, words := range map[int][]string{
		1: {"0 bytes"}, 2: {`"exclusive"`, "refuses to say", "exclusive access"}, 4: {"no such queue"}, 6: {"256 bytes"},
	} {
		brokertest.CheckText(t, counts[i].Err, words...)
	}
	if numbers := read(t, line); len(numbers) != 0 {
		t.Errorf("of no queue %v is read", numbers)
	}
}

// half are many names, with messages in each that is not missing.
func (b *celeryBroker) half(t testing.TB, n int) (queues []string, counts []int64) {
	t.Helper()
	for i := range n {
		name, count := fmt.Sprintf("queue-%04d", i), int64(unknown)
		if i%2 == 0 {
			count = int64(i % 3)
			b.Publish(t, name, make([]brokertest.Message, count)...)
		}
		queues, counts = append(queues, name), append(counts, count)
	}
	return queues, counts
}

// The server drops what was asked behind a queue that is not there.
func halfMissing(t *testing.T, b *celeryBroker) {
	queues, counts := b.half(t, 1000)
	line := openLine(t, b.lookout(t))
	for range 5 {
		reads(t, line, queues, counts...)
	}
	for i, name := range queues {
		if i%100 == 0 {
			b.Delete(t, name)
			counts[i] = unknown
		}
	}
	reads(t, line, queues, counts...)
}

func haveTheirTurn(t *testing.T, b *celeryBroker) {
	queues, counts := b.half(t, 200)
	line := openLine(t, b.lookout(t))
	reads(t, line, queues, counts...)
	for i := range queues {
		b.Publish(t, queues[i], brokertest.Message{})
		counts[i] = max(counts[i], 0) + 1
	}
	eventually.Holds(t, patience, "all queues to be seen", func() bool { return slices.Equal(read(t, line, queues...), counts) })
}

// process makes the process of a queue, which answers for it, do something.
func (b *celeryBroker) process(t testing.TB, name, what string) {
	t.Helper()
	b.Control(t, "eval", fmt.Sprintf(
		`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"%s">>, queue, <<"%s">>)), sys:%s(amqqueue:get_pid(Q)).`, b.vhost, name, what))
}

// Such is a mirrored queue while it is being copied.
func silentQueue(t *testing.T, b *celeryBroker) {
	b.cfg.Timeout = brokertest.Timeout
	queues := []string{"silent"}
	want := []int64{unknown}
	for i := range 60 { // for several channels
		queues, want = append(queues, fmt.Sprintf("queue-%d", i)), append(want, 1)
	}
	for _, name := range queues {
		b.Publish(t, name, brokertest.Message{})
	}
	line := openLine(t, b.lookout(t))
	becomes(t, line, "silent", 1)
	b.process(t, "silent", "suspend")
	resume := func() { b.process(t, "silent", "resume") }
	t.Cleanup(func() { resume() })
	counts, err := line.Read(t.Context(), queues)
	if err != nil {
		t.Fatal(err)
	}
	brokertest.CheckText(t, counts[0].Err, `queue "silent"`, "has not answered", "list_queues")
	for i, c := range counts {
		checkOneIfKnown(t, queues[i], c)
	}
	eventually.Holds(t, patience, "all but one to be read", func() bool { return slices.Equal(read(t, line, queues...), want) })
	for range 50 { // more than there can be channels: it takes up one
		reads(t, line, queues, want...)
	}
	b.samplesAround(t, "silent", queues)
	resume()
	resume = func() {}
	becomes(t, line, "silent", 1)
	want[0] = 1
	reads(t, line, queues, want...)
}

// checkOneIfKnown fails the test if a count is known and not one.
func checkOneIfKnown(t *testing.T, name string, c queue.Count) {
	t.Helper()
	if c.Err == nil && c.N != 1 {
		t.Errorf("%s has %d, want 1 or nothing known", name, c.N)
	}
}

// samplesAround waits for a sample that has the backlog of all queues but one.
func (b *celeryBroker) samplesAround(t *testing.T, silent string, queues []string) {
	t.Helper()
	d := b.NewDriver(t, brokertest.RightPassword, queues...)
	await(t, d, "the backlog of all queues but one", func(s *queue.Sample, err error) bool {
		if err != nil {
			t.Fatal(err)
		}
		brokertest.CheckText(t, s.Queues[silent].Backlog.Err, silent, "has not answered")
		return !slices.ContainsFunc(queues, func(name string) bool {
			checkOneIfKnown(t, name, s.Queues[name].Backlog)
			return name != silent && s.Queues[name].Backlog.Err != nil
		})
	})
}

func noRight(t *testing.T, b *celeryBroker) {
	b.Publish(t, "celery", brokertest.Message{})
	b.permit(t, "^$", "^$", "^$")
	line := openLine(t, b.lookout(t))
	becomes(t, line, "celery", 1)
	b.Forbid(t)
	_, err := b.lookout(t).Open(t.Context())
	brokertest.CheckText(t, err, "look out for messages of broker ns/broker", b.Address(), "refused", "set_permissions")
}

func lookoutMakesNothing(t *testing.T, b *celeryBroker) {
	b.Publish(t, "celery", brokertest.Message{})
	definitions := func() string {
		return string(b.API(t, http.MethodGet, "/definitions/"+url.PathEscape(b.vhost), nil))
	}
	before := definitions()
	line := openLine(t, b.lookout(t))
	for range 5 {
		reads(t, line, []string{"celery", "typo"}, 1, unknown)
	}
	if after := definitions(); after != before {
		t.Errorf("reading has changed\n%s\nto\n%s", before, after)
	}
}

func forgotten(t *testing.T, b *celeryBroker) {
	line := openLine(t, b.lookout(t))
	reads(t, line, []string{"celery"}, unknown)
	b.Publish(t, "celery", brokertest.Message{})
	line.Forget([]string{"celery", "other"})
	reads(t, line, []string{"celery"}, 1)
}

func TestNewLookoutRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  rabbitmq.Config
		want string
	}{
		"bad URL":    {rabbitmq.Config{URL: "amqp://u:SECRET@:1"}, "no host"},
		"Redis":      {rabbitmq.Config{URL: "redis://u:SECRET@h"}, "not read by the RabbitMQ driver"},
		"no CA file": {rabbitmq.Config{URL: "amqps://u:SECRET@h?ssl_ca_certs=/nowhere"}, "/nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rabbitmq.NewLookout(c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "SECRET") {
				t.Errorf("NewLookout = %v, want an error with %q and no credential", err, c.want)
			}
		})
	}
}
