package server

import (
	"context"
	"errors"

	goredis "github.com/redis/go-redis/v9"
)

// errLostPrimary says that a replica answers with old numbers.
var errLostPrimary = errors.New("the server is a replica that has lost its primary, its numbers may be old: wait for the failover, or correct the broker URL")

// RoleCheck looks whether the server is a replica out of step. Where the server
// does not say (no permission, a proxy), it is trusted.
type RoleCheck struct {
	role *goredis.SliceCmd
	mute bool
}

// Send adds the command of one exchange.
func (c *RoleCheck) Send(ctx context.Context, commands []goredis.Cmder) []goredis.Cmder {
	c.role = nil
	if c.mute {
		return commands
	}
	c.role = goredis.NewSliceCmd(ctx, "role")
	return append(commands, c.role)
}

// NoteRefusal is called after the server refused a transaction.
func (c *RoleCheck) NoteRefusal() {
	if c.role != nil && c.role.Err() != nil && !IsAbort(c.role.Err()) {
		c.mute = true
	}
}

// Verdict reads the reply: "master" …, or "slave", host, port, state of the
// link, offset (https://redis.io/docs/latest/commands/role/).
func (c *RoleCheck) Verdict() error {
	if c.role == nil {
		return nil
	}
	reply := c.role.Val() // empty if it is an error
	if len(reply) > 3 && reply[0] == "slave" && reply[3] != "connected" {
		return errLostPrimary
	}
	return nil
}
