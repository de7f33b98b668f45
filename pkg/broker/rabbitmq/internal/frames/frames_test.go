package frames_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/frames"
)

// Written down from the specification (amqp0-9-1.pdf, 4.2 and amqp0-9-1.xml).
func TestFramesAreThoseOfTheProtocol(t *testing.T) {
	for name, c := range map[string]struct{ got, want []byte }{
		"channel.open":     {frames.AppendOpen(nil, 0x0102), []byte("\x01\x01\x02\x00\x00\x00\x05\x00\x14\x00\x0A\x00\xCE")},
		"channel.close-ok": {frames.AppendCloseOk(nil, 3), []byte("\x01\x00\x03\x00\x00\x00\x04\x00\x14\x00\x29\xCE")},
		"queue.declare, passive": {
			frames.AppendQuestion(nil, 1, "celery"),
			[]byte("\x01\x00\x01\x00\x00\x00\x12\x00\x32\x00\x0A\x00\x00\x06celery\x01\x00\x00\x00\x00\xCE"),
		},
		"what was there is kept": {frames.AppendCloseOk([]byte("before"), 3), []byte("before\x01\x00\x03\x00\x00\x00\x04\x00\x14\x00\x29\xCE")},
		"heartbeat":              {frames.Heartbeat(), []byte("\x08\x00\x00\x00\x00\x00\x00\xCE")},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestRepliesAreRead(t *testing.T) {
	for name, c := range map[string]struct {
		frame string
		want  frames.Reply
	}{
		"channel.open-ok": {"\x01\x00\x07\x00\x00\x00\x08\x00\x14\x00\x0B\x00\x00\x00\x00\xCE", frames.Reply{Channel: 7, Kind: frames.Opened}},
		"queue.declare-ok": {
			"\x01\x01\x00\x00\x00\x00\x0F\x00\x32\x00\x0B\x02qq\x00\x00\x01\x02\x80\x00\x00\x00\xCE",
			frames.Reply{Channel: 256, Kind: frames.Counted, Messages: 258, Consumers: 1 << 31},
		},
		"channel.close": {
			"\x01\x00\x01\x00\x00\x00\x0D\x00\x14\x00\x28\x01\x94\x02no\x00\x32\x00\x0A\xCE",
			frames.Reply{Channel: 1, Kind: frames.Refused, Code: 404, Text: "no"},
		},
	} {
		got, err := frames.ParseReply([]byte(c.frame))
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
		for n := range len(c.frame) {
			if _, err := frames.ParseReply([]byte(c.frame[:n])); !errors.Is(err, frames.ErrMalformed) {
				t.Errorf("%s, of which the first %d bytes came: %v", name, n, err)
			}
		}
	}
}

func TestOtherFramesAreRefused(t *testing.T) {
	for name, frame := range map[string]string{
		"a heartbeat":                        "\x08\x00\x00\x00\x00\x00\x00\xCE",
		"no end":                             "\x01\x00\x07\x00\x00\x00\x08\x00\x14\x00\x0B\x00\x00\x00\x00\xCD",
		"a size that is too small":           "\x01\x00\x07\x00\x00\x00\x07\x00\x14\x00\x0B\x00\x00\x00\x00\xCE",
		"no room for a method":               "\x01\x00\x07\x00\x00\x00\x03\x00\x14\x00\xCE",
		"basic.deliver":                      "\x01\x00\x07\x00\x00\x00\x04\x00\x3C\x00\x3C\xCE",
		"a queue's name that ends too late":  "\x01\x00\x01\x00\x00\x00\x0F\x00\x32\x00\x0B\x03qq\x00\x00\x01\x02\x80\x00\x00\x00\xCE",
		"no number of consumers":             "\x01\x00\x01\x00\x00\x00\x0B\x00\x32\x00\x0B\x02qq\x00\x00\x01\x02\xCE",
		"a reason that ends too late":        "\x01\x00\x01\x00\x00\x00\x09\x00\x14\x00\x28\x01\x94\x03no\xCE",
		"a refusal without what was refused": "\x01\x00\x01\x00\x00\x00\x09\x00\x14\x00\x28\x01\x94\x02no\xCE",
		"a refusal without a code":           "\x01\x00\x01\x00\x00\x00\x05\x00\x14\x00\x28\x01\xCE",
	} {
		if got, err := frames.ParseReply([]byte(frame)); !errors.Is(err, frames.ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestHeadersTellFramesFromOtherBytes(t *testing.T) {
	for text, want := range map[string]bool{
		string(frames.AppendOpen(nil, 1)): true, string(frames.Heartbeat()): true, "\x02\x00\x01\x00\x00\x00\x00": true,
		"AMQP\x00\x00\x09\x01": false, "HTTP/1.1 400 Bad Request": false, "\x00\x00\x01\x00\x00\x00\x00": false, "\x04\x00\x01\x00\x00\x00\x00": false,
	} {
		if got := frames.ParseHeader([]byte(text)).IsFrame(); got != want {
			t.Errorf("%q is a frame: %t", text, got)
		}
	}
}

// Whatever comes, a reply is what its bytes say, or nothing.
func FuzzParseReply(f *testing.F) {
	f.Add([]byte("\x01\x00\x01\x00\x00\x00\x0D\x00\x14\x00\x28\x01\x94\x02no\x00\x32\x00\x0A\xCE"))
	f.Add([]byte("\x01\x01\x00\x00\x00\x00\x0F\x00\x32\x00\x0B\x02qq\x00\x00\x01\x02\x80\x00\x00\x00\xCE"))
	f.Fuzz(func(t *testing.T, b []byte) {
		reply, err := frames.ParseReply(b)
		if err != nil {
			if !errors.Is(err, frames.ErrMalformed) {
				t.Errorf("ParseReply(%q) = %v", b, err)
			}
			return
		}
		header := frames.ParseHeader(b)
		if !header.IsFrame() || header.Length != len(b) || reply.Channel != header.Channel || !bytes.Contains(b, []byte(reply.Text)) {
			t.Errorf("ParseReply(%q) = %+v, with the header %+v", b, reply, header)
		}
	})
}

// What is asked is one frame, whatever the name.
func FuzzAppendQuestion(f *testing.F) {
	f.Add(uint16(1), "celery")
	f.Add(uint16(0xFFFF), strings.Repeat("ü", 127))
	f.Fuzz(func(t *testing.T, channel uint16, name string) {
		if len(name) == 0 || len(name) > frames.MaxName {
			return
		}
		question := frames.AppendQuestion(nil, channel, name)
		if h := frames.ParseHeader(question); h.Length != len(question) || h.Channel != channel || !bytes.Contains(question, []byte(name)) {
			t.Errorf("the question about %q is %q", name, question)
		}
	})
}
