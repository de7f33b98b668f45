// Package monitor reads what Celery workers say of themselves: the events that they
// send, heartbeats above all, and their answers to remote control, with what is sent to
// ask them. It is pure: no I/O, no clock.
//
// Answers carry the arguments of tasks, which may be credentials. Nothing here decodes
// them, and no error quotes a message.
package monitor
