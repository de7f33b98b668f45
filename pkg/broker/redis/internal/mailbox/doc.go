// Package mailbox asks workers by remote control and reads their replies from a
// list, in which nothing stays for ever: not even what a worker says long after
// everybody has stopped waiting, or after this process has been killed.
//
// A worker's reply is an LPUSH, which takes over the expiry of a list that is there
// and makes one without an expiry if there is none. So the list is made before the
// question is published, with an expiry and one element at its end that is never
// taken away.
package mailbox
