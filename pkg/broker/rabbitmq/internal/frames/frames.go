package frames

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The types of frames (AMQP 0-9-1, 4.2.3): between the two are header and body of a
// message.
const (
	typeMethod    = 1
	typeBody      = 3
	typeHeartbeat = 8
)

const (
	// HeaderSize is that of type, channel and size, in bytes.
	HeaderSize = 7
	// MaxName is the longest name of a queue, in bytes (AMQP 0-9-1, shortstr).
	MaxName = 255
	// MaxReply bounds a frame that is a reply, header included: the longest holds
	// two short strings at the most.
	MaxReply = 1024
	// end closes each frame.
	end = 0xCE
)

// method is its class and its number within it.
type method uint32

// The methods that are used (amqp0-9-1.xml).
const (
	channelOpen    method = 20<<16 | 10
	channelOpenOk  method = 20<<16 | 11
	channelClose   method = 20<<16 | 40
	channelCloseOk method = 20<<16 | 41
	queueDeclare   method = 50<<16 | 10
	queueDeclareOk method = 50<<16 | 11
)

// passive is the bit of queue.declare that has it declare nothing.
const passive = 1

// ErrMalformed says that bytes are no frame, or not one of those that answer a
// question.
var ErrMalformed = errors.New("the server does not speak AMQP 0-9-1 as it should")

// Header is the beginning of a frame.
type Header struct {
	// Type is what the frame holds; see IsFrame.
	Type byte
	// Channel is 0 for what concerns the connection.
	Channel uint16
	// Length is that of the whole frame, in bytes.
	Length int
}

// ParseHeader reads the first HeaderSize bytes of a frame.
func ParseHeader(b []byte) Header {
	return Header{
		Type: b[0], Channel: binary.BigEndian.Uint16(b[1:]),
		Length: HeaderSize + int(binary.BigEndian.Uint32(b[3:])) + 1,
	}
}

// IsFrame tells whether there is a type like this.
func (h Header) IsFrame() bool {
	return h.Type >= typeMethod && h.Type <= typeBody || h.Type == typeHeartbeat
}

// Heartbeat is the frame of this name.
func Heartbeat() []byte { return []byte{typeHeartbeat, 0, 0, 0, 0, 0, 0, end} }

// AppendOpen opens a channel.
func AppendOpen(b []byte, channel uint16) []byte {
	return appendMethod(b, channel, channelOpen, 0) // a reserved string, empty
}

// AppendQuestion asks how many messages wait in a queue, by a passive declaration.
// The name has 1 to MaxName bytes.
func AppendQuestion(b []byte, channel uint16, name string) []byte {
	begin := len(b)
	b = appendHead(b, channel, queueDeclare)
	b = append(b, 0, 0, byte(len(name))) // a reserved number before the name
	b = append(b, name...)
	b = append(b, passive, 0, 0, 0, 0) // an empty table of arguments after the bits
	return appendEnd(b, begin)
}

// AppendCloseOk lets the server know that it is known to have closed a channel, which
// may then be opened again.
func AppendCloseOk(b []byte, channel uint16) []byte {
	return appendMethod(b, channel, channelCloseOk)
}

func appendMethod(b []byte, channel uint16, m method, arguments ...byte) []byte {
	begin := len(b)
	return appendEnd(append(appendHead(b, channel, m), arguments...), begin)
}

// appendHead begins a frame, the size of which is not known yet.
func appendHead(b []byte, channel uint16, m method) []byte {
	b = append(b, typeMethod)
	b = binary.BigEndian.AppendUint16(b, channel)
	b = append(b, 0, 0, 0, 0)
	return binary.BigEndian.AppendUint32(b, uint32(m))
}

// appendEnd fills in the size of a frame that begins there, and ends it.
func appendEnd(b []byte, begin int) []byte {
	binary.BigEndian.PutUint32(b[begin+3:], uint32(len(b)-begin-HeaderSize))
	return append(b, end)
}

// Kind is what a reply says.
type Kind int

// The kinds of replies.
const (
	// Opened: the channel is open.
	Opened Kind = iota
	// Counted: the queue is there.
	Counted
	// Refused: the server has refused the question and closed the channel. It
	// answers none of those that were sent after it.
	Refused
)

// Reply is a frame of a channel other than 0.
type Reply struct {
	Channel uint16
	Kind    Kind
	// Messages is how many are ready, Consumers how many may take them; of Counted.
	Messages, Consumers uint32
	// Code and Text are the reason of Refused.
	Code uint16
	Text string
}

// ParseReply reads a whole frame. The error wraps ErrMalformed. What it returns does
// not refer to b.
func ParseReply(b []byte) (Reply, error) {
	const least = HeaderSize + 4 + 1 // with the method, and the end
	if len(b) < least || len(b) != ParseHeader(b).Length || b[0] != typeMethod || b[len(b)-1] != end {
		return Reply{}, fmt.Errorf("%w: a frame is no method, or has a wrong size", ErrMalformed)
	}
	r := Reply{Channel: ParseHeader(b).Channel}
	m, arguments := method(binary.BigEndian.Uint32(b[HeaderSize:])), b[HeaderSize+4:len(b)-1]
	var whole bool
	switch m {
	case channelOpenOk:
		return r, nil // its argument is reserved
	case queueDeclareOk:
		r.Kind = Counted
		whole = r.parseCounted(arguments)
	case channelClose:
		r.Kind = Refused
		whole = r.parseRefused(arguments)
	default:
		return Reply{}, fmt.Errorf("%w: method %d.%d answers no question", ErrMalformed, m>>16, m&0xFFFF)
	}
	if !whole {
		return Reply{}, fmt.Errorf("%w: method %d.%d is cut off", ErrMalformed, m>>16, m&0xFFFF)
	}
	return r, nil
}

// parseCounted reads the name of the queue and the two numbers.
func (r *Reply) parseCounted(b []byte) bool {
	_, b, whole := cutString(b)
	if !whole || len(b) < 8 {
		return false
	}
	r.Messages, r.Consumers = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	return true
}

// parseRefused reads code and text; which method was refused follows.
func (r *Reply) parseRefused(b []byte) bool {
	if len(b) < 2 {
		return false
	}
	text, rest, whole := cutString(b[2:])
	r.Code, r.Text = binary.BigEndian.Uint16(b), string(text)
	return whole && len(rest) >= 4
}

// cutString cuts a short string off: a byte of length, and so many bytes.
func cutString(b []byte) (text, rest []byte, whole bool) {
	if len(b) == 0 || len(b) <= int(b[0]) {
		return nil, nil, false
	}
	n := 1 + int(b[0])
	return b[1:n], b[n:], true
}
