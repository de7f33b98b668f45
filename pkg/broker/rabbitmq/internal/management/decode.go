package management

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// Queue is what the API says of a queue.
type Queue struct {
	// Type is classic, quorum or stream; empty if the broker does not say.
	Type string
	// State is running for a queue that can be counted; empty if the broker does
	// not say.
	State string
	// Exclusive queues belong to one connection alone.
	Exclusive bool
	// Ready messages wait, Unacked ones are with a worker. RabbitMQ has been seen to
	// answer with negative numbers and with "NaN" after a restart: such a number is
	// not known.
	Ready, Unacked celery.Number
}

// errReply says that a reply is not what the API answers.
var errReply = errors.New("the reply is not a list of queues")

// decodeQueues adds the queues of one reply, a list or a page of one, and returns
// how many pages there are. It decodes queue by queue: the memory follows what is
// kept. A queue that makes no sense is left out.
func decodeQueues(body io.Reader, queues map[string]Queue) (pages int, err error) {
	d := json.NewDecoder(body)
	first, err := d.Token()
	if err != nil {
		return 0, err
	}
	switch first {
	case json.Delim('['):
		return 1, decodeList(d, queues)
	case json.Delim('{'):
		return decodePage(d, queues)
	}
	return 0, errReply
}

// decodePage reads the fields of a page.
func decodePage(d *json.Decoder, queues map[string]Queue) (pages int, err error) {
	found := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return 0, err
		}
		switch key {
		case "items":
			found = true
			if start, err := d.Token(); err != nil || start != json.Delim('[') {
				return 0, errors.Join(errReply, err)
			}
			err = decodeList(d, queues)
		case "page_count":
			err = d.Decode(&pages)
		default:
			err = d.Decode(&json.RawMessage{})
		}
		if err != nil {
			return 0, err
		}
	}
	if !found {
		return 0, errReply
	}
	_, err = d.Token()
	return pages, err
}

// decodeList reads the rest of a list, its end included.
func decodeList(d *json.Decoder, queues map[string]Queue) error {
	for d.More() {
		var row struct {
			Name      *string       `json:"name"`
			Type      string        `json:"type"`
			State     string        `json:"state"`
			Exclusive bool          `json:"exclusive"`
			Ready     celery.Number `json:"messages_ready"`
			Unacked   celery.Number `json:"messages_unacknowledged"`
		}
		err := d.Decode(&row)
		var mistyped *json.UnmarshalTypeError
		if err != nil && !errors.As(err, &mistyped) {
			return err
		}
		if row.Name == nil || *row.Name == "" {
			continue
		}
		q := Queue{Type: row.Type, State: row.State, Exclusive: row.Exclusive, Ready: row.Ready, Unacked: row.Unacked}
		if mistyped != nil {
			q.State = fmt.Sprintf("described by a %s of the wrong type", mistyped.Field)
		}
		queues[*row.Name] = q
	}
	_, err := d.Token()
	return err
}

func decodeClusterName(body io.Reader) (string, error) {
	var reply struct {
		Name string `json:"name"`
	}
	if err := json.NewDecoder(body).Decode(&reply); err != nil {
		return "", fmt.Errorf("read the cluster's name: %w", err)
	}
	return reply.Name, nil
}

// decodeReason is what the API says beside a code, empty if it says nothing.
func decodeReason(body io.Reader) string {
	const most = 200
	var reply struct {
		Reason string `json:"reason"`
	}
	_ = json.NewDecoder(body).Decode(&reply) // the code says enough
	return reply.Reason[:min(len(reply.Reason), most)]
}
