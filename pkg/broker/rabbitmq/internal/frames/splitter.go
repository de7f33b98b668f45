package frames

import (
	"fmt"
	"math"
	"net"
	"sync"
	"time"
)

const (
	// splitterBuffer is how much is read at once, in bytes; the shortest reply has
	// about 30.
	splitterBuffer = 32 << 10
	// maxUnread bounds the replies that nobody has taken.
	maxUnread = 1 << 17
	// signOfLife is how often the client library, which sees no reply, is shown that
	// the server lives: a server that sends replies need send no heartbeats.
	signOfLife = time.Second
	// several replies in one read are a sign that more are on their way: they cost a
	// third less if they are let come together for that long.
	several = 4
	gather  = 2 * time.Millisecond
)

// Splitter is a connection that two share. The client library has channel 0, over
// which it logs in, exchanges heartbeats and says farewell; the others are ours. It is
// the library that reads, and what is for us is put aside. Who writes must write whole
// frames at once, as the library does after the log-in.
type Splitter struct {
	net.Conn

	// What follows is for Read alone. The bytes between start and end are yet to be
	// looked at, of which the first through are the library's.
	buffer     []byte
	start, end int
	through    int
	aside      []Reply
	// many is whether the last read brought several replies.
	many bool
	// lives is set while the library has not been shown that replies came; shown is
	// when it was last.
	lives bool
	shown time.Time

	mutex   sync.Mutex
	replies []Reply
	came    chan struct{}
}

// NewSplitter shares a connection.
func NewSplitter(c net.Conn) *Splitter {
	return &Splitter{Conn: c, buffer: make([]byte, splitterBuffer), came: make(chan struct{}, 1)}
}

// Read implements net.Conn, for the client library.
func (s *Splitter) Read(p []byte) (int, error) {
	for {
		if n := s.pass(p); n > 0 {
			return n, nil
		}
		whole, err := s.next()
		if whole {
			continue
		}
		if err == nil {
			err = s.handOver()
		}
		if err != nil {
			return 0, err
		}
		if n := s.showLife(p); n > 0 {
			return n, nil
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
}

// pass gives the library what has come for it.
func (s *Splitter) pass(p []byte) int {
	n := copy(p, s.buffer[s.start:min(s.end, s.start+s.through)])
	s.start += n
	s.through -= n
	return n
}

// next looks at the next frame. It is false if that is not there, or not all of it.
func (s *Splitter) next() (bool, error) {
	b := s.buffer[s.start:s.end]
	if s.through > 0 || len(b) < HeaderSize {
		return false, nil
	}
	h := ParseHeader(b)
	switch {
	case !h.IsFrame():
		s.through = math.MaxInt32 // the library is to say what is wrong
		return true, nil
	case h.Channel == 0:
		s.through = h.Length
		return true, nil
	case h.Length > MaxReply:
		return false, fmt.Errorf("%w: a reply has %d bytes", ErrMalformed, h.Length)
	case len(b) < h.Length:
		return false, nil
	}
	reply, err := ParseReply(b[:h.Length])
	if err != nil {
		return false, err
	}
	s.aside = append(s.aside, reply)
	s.start += h.Length
	return true, nil
}

// handOver gives away what was put aside.
func (s *Splitter) handOver() error {
	if len(s.aside) == 0 {
		return nil
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.replies) > maxUnread {
		return fmt.Errorf("%w: it sends replies that nobody has asked for", ErrMalformed)
	}
	s.replies = append(s.replies, s.aside...)
	s.many, s.lives = len(s.aside) >= several, true
	s.aside = s.aside[:0]
	select {
	case s.came <- struct{}{}:
	default:
	}
	return nil
}

// showLife gives the library a heartbeat for the replies that it does not see.
func (s *Splitter) showLife(p []byte) int {
	beat := Heartbeat()
	if !s.lives || s.through > 0 || len(p) < len(beat) || time.Since(s.shown) < signOfLife {
		return 0
	}
	s.lives, s.shown = false, time.Now()
	return copy(p, beat)
}

// fill reads what comes. There is room: the rest of a frame is short.
func (s *Splitter) fill() error {
	if s.many {
		time.Sleep(gather)
		s.many = false
	}
	s.end = copy(s.buffer, s.buffer[s.start:s.end])
	s.start = 0
	n, err := s.Conn.Read(s.buffer[s.end:])
	s.end += n
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// Came has a token while there may be replies for Take.
func (s *Splitter) Came() <-chan struct{} { return s.came }

// Take returns the replies that have come, and does not wait for any.
func (s *Splitter) Take() []Reply {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	replies := s.replies
	s.replies = nil
	return replies
}
