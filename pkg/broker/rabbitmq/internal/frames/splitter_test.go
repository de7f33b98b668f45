package frames

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pieces is a connection from which come these bytes, some at a time.
type pieces struct {
	net.Conn
	next func() []byte // nil at the end
	left []byte
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		if p.left = p.next(); p.left == nil {
			return 0, io.EOF
		}
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

// cut gives text in pieces of these lengths, and then again.
func cut(text string, lengths ...int) *pieces {
	i := 0
	return &pieces{next: func() []byte {
		if text == "" {
			return nil
		}
		n := min(lengths[i%len(lengths)], len(text))
		piece := text[:n]
		text, i = text[n:], i+1
		return []byte(piece)
	}}
}

// counted is a reply with so many messages.
func counted(messages byte) string {
	return "\x01\x00\x01\x00\x00\x00\x0F\x00\x32\x00\x0B\x02qq\x00\x00\x00" + string([]byte{messages}) + "\x00\x00\x00\x00\xCE"
}

// ofConnection is a frame of channel 0 with so many bytes.
func ofConnection(n int) string {
	size := string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	return "\x01\x00\x00" + size + strings.Repeat("\xCE", n) + "\xCE"
}

// readAll reads as the client library does.
func readAll(s *Splitter) (string, error) {
	var all bytes.Buffer
	buffer := make([]byte, 4096)
	for {
		n, err := s.Read(buffer)
		all.Write(buffer[:n])
		if err != nil {
			return all.String(), err
		}
	}
}

// Whatever the pieces are in which frames come, each goes to the one whose it is, in
// order and whole.
func TestFramesAreSplitHoweverTheyCome(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test that can be repeated
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			var all, ofLibrary strings.Builder
			var want []uint32
			for range 1 + random.IntN(60) {
				if random.IntN(3) > 0 {
					all.WriteString(counted(byte(len(want))))
					want = append(want, uint32(len(want)))
					continue
				}
				frame := ofConnection([]int{0, 1, 50, 5000, 3 * splitterBuffer}[random.IntN(5)])
				all.WriteString(frame)
				ofLibrary.WriteString(frame)
			}
			s := NewSplitter(cut(all.String(), 1+random.IntN(40), 1+random.IntN(2*splitterBuffer), 1+random.IntN(4)))
			s.shown = time.Now() // for no sign of life
			read, err := readAll(s)
			if !errors.Is(err, io.EOF) || read != ofLibrary.String() {
				t.Errorf("the library reads %d bytes (%v), want %d", len(read), err, ofLibrary.Len())
			}
			var got []uint32
			for _, reply := range s.Take() {
				got = append(got, reply.Messages)
			}
			if !slices.Equal(got, want) {
				t.Errorf("the replies are %v, want %d", got, len(want))
			}
		})
	}
}

// A server that sends replies sends no heartbeats (rabbit_heartbeat.erl), and the
// library closes a connection of which it sees nothing.
func TestTheLibrarySeesThatAServerLivesThatSendsRepliesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const seconds = 60
		n := 0
		s := NewSplitter(&pieces{next: func() []byte {
			if n++; n > 20*seconds {
				return nil
			}
			time.Sleep(50 * time.Millisecond)
			return []byte(counted(1))
		}})
		read, err := readAll(s)
		beats := strings.Count(read, string(Heartbeat()))
		if !errors.Is(err, io.EOF) || len(read) != beats*len(Heartbeat()) || beats < seconds/2 || beats > seconds+1 {
			t.Errorf("in %d s the library has seen %d heartbeats in %d bytes (%v)", seconds, beats, len(read), err)
		}
	})
}

// A heartbeat in the midst of a frame would spoil it.
func TestTheLibraryIsShownNothingWithinAFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		frame := ofConnection(100)
		parts := []string{counted(1) + frame[:50], frame[50:] + counted(2), counted(3)}
		s := NewSplitter(&pieces{next: func() []byte {
			if len(parts) == 0 {
				return nil
			}
			part := parts[0]
			parts = parts[1:]
			time.Sleep(time.Minute)
			return []byte(part)
		}})
		beat := string(Heartbeat())
		if read, err := readAll(s); !errors.Is(err, io.EOF) || read != frame+beat+beat {
			t.Errorf("the library reads %q (%v)", read, err)
		}
	})
}

func TestTheLibraryIsGivenWhatIsNoFrame(t *testing.T) {
	for _, text := range []string{"AMQP\x00\x00\x09\x01", "HTTP/1.1 400 Bad Request\r\n\r\n", "no\x00\x00\x00\x00\x01xx\x01\x00\x01\x00\x00\x00\x04AMQP\xCE"} {
		if read, err := readAll(NewSplitter(cut(text, 3))); !errors.Is(err, io.EOF) || read != text {
			t.Errorf("of %q the library reads %q (%v)", text, read, err)
		}
	}
}

func TestConnectionsEndThatBringWhatCannotBeReplies(t *testing.T) {
	for name, text := range map[string]string{
		"a message":            "\x03\x00\x01\x00\x00\x00\x01x\xCE",
		"a reply without end":  strings.TrimSuffix(counted(1), "\xCE") + "\xCF",
		"a reply of 4 GiB":     "\x01\x00\x01\xFF\xFF\xFF\xFF\x00\x32",
		"replies without end ": strings.Repeat(counted(1), maxUnread+splitterBuffer),
	} {
		synctest.Test(t, func(t *testing.T) {
			if _, err := readAll(NewSplitter(cut(text, splitterBuffer))); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
