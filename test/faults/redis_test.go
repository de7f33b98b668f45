package faults_test

import (
	"context"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// message is what kombu writes, as far as a count needs it.
const message = `{"body": "W10=", "headers": {"eta": null}, "properties": {}}`

// do runs commands on a server.
func do(t *testing.T, server *servers.Redis, fill func(ctx context.Context, p goredis.Pipeliner)) {
	t.Helper()
	ctx := context.Background()
	if _, err := server.Admin().Pipelined(ctx, func(p goredis.Pipeliner) error {
		fill(ctx, p)
		return nil
	}); err != nil {
		t.Fatalf("prepare redis-server: %v", err)
	}
}

// publish lets n messages wait in a queue, and binds the queue as a worker does.
func publish(t *testing.T, server *servers.Redis, queue string, n int) {
	t.Helper()
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) {
		p.SAdd(ctx, "_kombu.binding."+queue, queue+"\x06\x16\x06\x16"+queue)
		for range n {
			p.LPush(ctx, queue, message)
		}
	})
}

// hold puts an entry into unacked, as a worker does that has taken a message.
func hold(t *testing.T, server *servers.Redis, tag, value string) {
	t.Helper()
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) {
		p.HSet(ctx, "unacked", tag, value)
		p.ZAdd(ctx, "unacked_index", goredis.Z{Member: tag, Score: 1})
	})
}

// held is the entry of a message that a worker has taken from a queue.
func held(queue string) string { return `[` + message + `, "", "` + queue + `"]` }
